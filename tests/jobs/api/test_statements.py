"""How many statements the API sends to the database: each is a round trip for which a client waits."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.helpers.factories import make_node

pytestmark = pytest.mark.django_db(transaction=True)

PLAIN = {"image": "alpine", "command": ["true"]}
WITH_EVERYTHING = PLAIN | {
    "meta": {"team": "reports", "run": "7"},
    "inputs": [{"type": "file", "path": name, "content": "x"} for name in "abc"],
    "outputs": [{"type": "event", "path": name} for name in "def"],
    "callback": {"url": "https://hook.example/", "key": "key"},
}


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collect the statements of this thread, each as its first word and the table."""
    found: list[str] = []
    with CaptureQueriesContext(connection) as context:
        yield found
    for query in context.captured_queries:
        words = query["sql"].replace('"', "").split()
        table = next((after for word, after in pairwise(words) if word in ("INTO", "FROM")), "")
        found.append(f"{words[0]} {table}".strip())


def post(client: Client, body: dict[str, Any]) -> str:
    answer = client.post("/v1/jobs", body, content_type="application/json")
    assert answer.status_code == 202, answer.content
    return str(answer.json()["id"])


def test_a_plain_job_is_one_statement_in_a_transaction(client: Client) -> None:
    make_node()
    with statements() as found:
        post(client, PLAIN)
    assert found == ["BEGIN", "INSERT jobs_job", "COMMIT"]


def test_a_job_with_everything_is_one_statement_for_each_table(client: Client) -> None:
    # Given a destination that was used before
    post(client, WITH_EVERYTHING)
    with statements() as found:
        post(client, WITH_EVERYTHING)
    # I expect its row to be read, which has to exist for the subscription
    inserts = ["INSERT jobs_job", "INSERT jobs_input", "INSERT jobs_output"]
    assert found == ["BEGIN", *inserts, "SELECT callbacks_destination", "INSERT callbacks_subscription", "COMMIT"]
