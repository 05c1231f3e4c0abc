"""How many messages the API sends to the database: each is a round trip for which a client waits."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.helpers.factories import make_node

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("limits_in_memory")]

PLAIN = {"image": "alpine", "command": ["true"]}
WITH_EVERYTHING = PLAIN | {
    "meta": {"team": "reports", "run": "7"},
    "inputs": [{"type": "file", "path": name, "content": "x"} for name in "abc"],
    "outputs": [{"type": "event", "path": name} for name in "def"],
    "callback": {"url": "https://hook.example/", "key": "key"},
}


@contextmanager
def messages() -> Iterator[list[str]]:
    """Collect what this thread sends to the database: statements, each as its first word and the table."""
    found: list[str] = []
    with CaptureQueriesContext(connection) as context:
        yield found
    found += ["; ".join(map(_shape, query["sql"].split("; "))) for query in context.captured_queries]


def _shape(statement: str) -> str:
    words = statement.replace('"', "").split()
    tables = (after for word, after in pairwise(words) if word in ("INTO", "FROM", "UPDATE") and not after.startswith("("))
    return f"{words[0]} {next(tables, '')}".strip()


def post(client: Client, body: dict[str, Any]) -> str:
    answer = client.post("/v1/jobs", body, content_type="application/json")
    assert answer.status_code == 202, answer.content
    return str(answer.json()["id"])


def stored(*tables: str) -> list[str]:
    """Return what stores a job: PostgreSQL gets one message, which it executes as a transaction."""
    if connection.vendor == "postgresql":
        return ["; ".join(tables)]
    return ["BEGIN", *tables, "COMMIT"]


def test_a_plain_job_is_one_statement(client: Client) -> None:
    make_node()
    with messages() as found:
        post(client, PLAIN)
    assert found == stored("INSERT jobs_job")


def test_a_job_with_everything_is_one_message_with_a_statement_for_each_table(client: Client) -> None:
    with messages() as found:
        post(client, WITH_EVERYTHING)
    # I expect the row of the destination to be touched if it is old, and added if there is none: the subscription refers to it
    destination = ["UPDATE callbacks_destination", "INSERT callbacks_destination"]
    inserts = ["INSERT jobs_job", "INSERT jobs_input", "INSERT jobs_output"]
    assert found == stored(*inserts, *destination, "INSERT callbacks_subscription")


def test_an_accepted_job_is_read_with_its_transfers_the_nodes_and_the_jobs_ahead(client: Client) -> None:
    make_node()
    job_id = post(client, PLAIN)
    with messages() as found:
        assert client.get(f"/v1/jobs/{job_id}").json()["waiting"] == "free capacity on a node"
    transfers = ["SELECT jobs_input", "SELECT jobs_output"]
    assert found == ["SELECT jobs_job", "SELECT jobs_node", "SELECT jobs_job", *transfers]


def test_a_decided_job_is_read_with_its_transfers(client: Client) -> None:
    job_id = post(client, PLAIN)
    client.delete(f"/v1/jobs/{job_id}")
    with messages() as found:
        client.get(f"/v1/jobs/{job_id}")
    assert found == ["SELECT jobs_job", "SELECT jobs_input", "SELECT jobs_output"]


@pytest.mark.parametrize(("query", "expected"), [("", 1), ("status=accepted", 1), ("image=alpine", 1), ("node=node", 2)])
def test_a_page_is_one_statement_and_one_more_for_the_name_of_a_node(client: Client, query: str, expected: int) -> None:
    make_node("node")
    for _ in range(20):
        post(client, PLAIN)
    with messages() as found:
        client.get(f"/v1/jobs?{query}")
    assert len(found) == expected
