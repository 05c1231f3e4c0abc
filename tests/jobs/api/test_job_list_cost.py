"""What a page of GET /v1/jobs reads, and who looks for a single job: as much from a large table as from a small one."""

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.test import Client

from jobs.api import limits
from jobs.models import Job
from jobs.states import State
from orchestrator_site.base.db.column_statistics import first_in_index_order
from tests.helpers.factories import make_node
from tests.helpers.keys import make_namespace
from tests.helpers.large_tables import rows_read, vacuum

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite neither counts rows nor has an index of `meta`"),
]
TABLES = ("jobs_job", "jobs_metaentry")
JOBS = 2000
OLD = JOBS // 10
PAGE = 10
FEW = 500
FIRST_ROWS = 128  # of the first batch that is read of an index, if there are several filters


def store(numbers: range, **values: Any) -> None:
    Job.objects.bulk_create(
        Job(
            uuid=UUID(int=number << 80 | 7 << 76 | 2 << 62),
            id=f"j{number}",
            cpu_millis=1,
            memory_mib=1,
            timeout_seconds=1,
            workspace="/",
            pull_policy="missing",
            network="none",
            created_at="2026-01-31T12:00:00Z",
            **values,
        )
        for number in numbers
    )


@pytest.fixture
def many_jobs() -> None:
    """Store jobs of which the oldest have a node, an image, a status and a member of `meta` of their own."""
    old = {"image": "old", "status": State.FAILED, "node": make_node("old"), "meta": {"run": "old", "team": "x"}}
    new = {"image": "new", "status": State.COMPLETED, "node": make_node("new"), "meta": {"run": "new", "team": "x"}}
    store(range(OLD), **old)
    store(range(OLD, JOBS), **new)
    vacuum(TABLES, analyze=True)


QUERIES = {
    "": PAGE,
    "status=failed": PAGE,
    "status=running": 0,
    "image=old": PAGE,
    "node=old": PAGE,
    "createdBefore=1970-01-01T00:00:00.100Z": PAGE,
    "meta.team=x": PAGE,  # a value of all jobs
    "meta.run=old": PAGE,  # a value of old jobs only
    "meta.run=none": 0,
}


@pytest.mark.usefixtures("many_jobs")
def test_a_page_reads_little_more_than_it_shows(client: Client) -> None:
    read: dict[str, int] = {}
    for query, found in QUERIES.items():
        with transaction.atomic():
            before = rows_read(TABLES)
            answer = client.get(f"/v1/jobs?limit={PAGE}&{query}")
            read[query] = rows_read(TABLES) - before
        assert len(answer.json()["jobs"]) == found

    # I expect each page to be read from indexes: an entry of that of the filter, one of the primary key's and the row itself
    # for each job that is shown, and for the next
    assert {query: rows for query, rows in read.items() if rows > 3 * (PAGE + 1)} == {}


@pytest.mark.usefixtures("many_jobs")
def test_a_page_of_a_large_namespace_does_not_read_all_of_it(client: Client) -> None:
    # Given a namespace that has all jobs: PostgreSQL supposes that it has fewer than a page, because it knows nothing of it
    assert JOBS / 200 < PAGE + 1
    queries = {
        **QUERIES,
        "createdAfter=1970-01-01T00:00:00.100Z": PAGE,
        "createdAfter=1970-01-01T00:00:00.100Z&createdBefore=1970-01-01T00:00:01.900Z": PAGE,
        "status=failed&createdBefore=1970-01-01T00:00:00.100Z": PAGE,
    }

    # When each filter is used
    read: dict[str, int] = {}
    for query, found in queries.items():
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL enable_seqscan = off")  # it would be quicker in so small a table
            before = rows_read(TABLES)
            answer = client.get(f"/v1/jobs?namespace=default&limit={PAGE}&{query}")
            read[query] = rows_read(TABLES) - before
        assert len(answer.json()["jobs"]) == found

    # I expect a batch to be read from the index of the namespace and from that of the filter, and the jobs of one of them
    assert {query: rows for query, rows in read.items() if rows > 4 * FIRST_ROWS + 3 * (PAGE + 1)} == {}


@pytest.mark.usefixtures("many_jobs")
def test_postgresql_expects_as_few_rows_of_an_index_as_are_asked_for() -> None:
    # Given jobs of which most have been completed, as PostgreSQL knows
    completed = Job.objects.filter(status=State.COMPLETED).order_by("-uuid")

    # When the second five of them are looked for
    found = Job.objects.filter(uuid__in=first_in_index_order(completed, "uuid", limit=5, offset=5)).order_by("-uuid")

    # I expect no plan for many, such as to read the whole table
    assert list(found) == list(completed[5:10])
    assert json.loads(found.explain(format="json"))[0]["Plan"]["Plan Rows"] == 5


@pytest.mark.usefixtures("many_jobs")
def test_of_several_filters_the_most_selective_one_is_read(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given filters of which one passes all jobs, and one only old jobs: more are new than a page may read
    monkeypatch.setattr(limits, "ROWS_READ", 3 * PAGE)

    # When their jobs are requested, I expect the first page to be full
    for query in ("meta.team=x&meta.run=old", "meta.team=x&status=failed", "node=old&meta.team=x", "image=old&node=old"):
        answer = client.get(f"/v1/jobs?limit={PAGE}&{query}")
        assert len(answer.json()["jobs"]) == PAGE, query


def test_to_find_one_job_of_a_namespace_that_has_no_statistics_does_not_read_the_others(client: Client) -> None:
    # Given many jobs that wait, of a namespace that PostgreSQL has not seen when it looked at the values
    make_namespace("unseen")
    store(range(FEW), status=State.COMPLETED, image="old", meta={})
    vacuum(TABLES, analyze=True)
    store(range(FEW, 2 * FEW), namespace="unseen", status=State.ACCEPTED, image="new", meta={})
    name = f"/v1/jobs/j{FEW}"

    # When one of them is looked for
    steps: dict[str, Callable[[], Any]] = {
        "get": lambda: client.get(f"{name}?namespace=unseen"),
        "wait": lambda: client.get(f"{name}?namespace=unseen&wait=1"),
        "log": lambda: client.get(f"{name}/logs?namespace=unseen"),
        "events": lambda: client.get(f"{name}/events?namespace=unseen"),
    }
    read: dict[str, int] = {}
    for step, take in steps.items():
        with transaction.atomic():
            before = rows_read(TABLES)
            assert take()
            read[step] = rows_read(TABLES) - before

    # I expect little more than this one to be read
    assert {step: rows for step, rows in read.items() if rows > FEW / 4} == {}
