"""What a page of GET /v1/jobs reads: as much from a large table as from a small one."""

from uuid import UUID

import pytest
from django.db import connection, transaction
from django.test import Client

from jobs.api import limits
from jobs.models import Job
from jobs.states import State
from tests.helpers.factories import make_node
from tests.helpers.large_tables import rows_read, vacuum

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite neither counts rows nor has an index of `meta`"),
]
TABLES = ("jobs_job", "jobs_metaentry")
JOBS = 2000
OLD = JOBS // 10
PAGE = 10


@pytest.fixture
def many_jobs() -> None:
    """Store jobs of which the oldest have a node, an image, a status and a member of `meta` of their own."""
    old = {"image": "old", "status": State.FAILED, "node": make_node("old"), "meta": {"run": "old", "team": "x"}}
    new = {"image": "new", "status": State.COMPLETED, "node": make_node("new"), "meta": {"run": "new", "team": "x"}}
    Job.objects.bulk_create(
        Job(
            **(old if number < OLD else new),
            uuid=UUID(int=number << 80 | 7 << 76 | 2 << 62),
            id=f"j{number}",
            cpu_millis=1,
            memory_mib=1,
            timeout_seconds=1,
            workspace="/",
            pull_policy="missing",
            network="none",
            created_at="2026-01-31T12:00:00Z",
        )
        for number in range(JOBS)
    )
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
def test_of_several_filters_the_most_selective_one_is_read(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given filters of which one passes all jobs, and one only old jobs: more are new than a page may read
    monkeypatch.setattr(limits, "ROWS_READ", 3 * PAGE)

    # When their jobs are requested, I expect the first page to be full
    for query in ("meta.team=x&meta.run=old", "meta.team=x&status=failed", "node=old&meta.team=x", "image=old&node=old"):
        answer = client.get(f"/v1/jobs?limit={PAGE}&{query}")
        assert len(answer.json()["jobs"]) == PAGE, query
