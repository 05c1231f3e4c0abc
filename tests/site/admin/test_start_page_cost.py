"""What the start page of the admin reads: as much from large tables as from small ones."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from callbacks.models import Attempt, Event
from jobs.models import Job, Node
from jobs.states import State
from orchestrator_site.admin.start_page import charts, counts, history
from orchestrator_site.admin.start_page.attention import problems
from orchestrator_site.admin.start_page.counts import live_counts
from tests.helpers.admin_data import fill
from tests.helpers.large_tables import rows_read, vacuum

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite does not count rows"),
]
ROWS = 5000
LIMIT = 50
LARGE = ("jobs_job", "callbacks_subscription", "callbacks_event", "callbacks_attempt")
SEQ_SCAN = f"Seq Scan on ({'|'.join(LARGE)})"
KEY_SCAN = r"Scan (Backward )?using (?P<table>\w+)_pkey on (?P=table)( \w+)? .*\n *Filter"
PARTS: list[Callable[[], Any]] = [problems, live_counts, charts.charts]


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Store jobs in all states with an event and an attempt each, and lower the limits accordingly."""
    fill(ROWS)
    vacuum(LARGE, analyze=True)
    monkeypatch.setattr(counts, "MAX_COUNTED", LIMIT)
    monkeypatch.setattr(history, "MAX_READ", LIMIT)


@pytest.mark.usefixtures("many")
def test_each_part_reads_a_few_rows_of_large_tables() -> None:  # one test, since storing the rows takes the time
    for part in PARTS:
        # When a part of the page is made
        with transaction.atomic():
            before = rows_read(LARGE)
            plans = _plans(part)
            read = rows_read(LARGE) - before

        # I expect it to read a small part of them, by indexes
        assert read < ROWS / 5, part
        for plan in plans:
            assert not re.search(SEQ_SCAN, plan), plan

    # Given statistics of a time with many nodes
    Node.objects.bulk_create(Node(name=f"gone-{number}") for number in range(300))
    vacuum(["jobs_node"], analyze=True)
    Node.objects.filter(name__startswith="gone-").delete()

    # I expect as few rows to be read of the jobs that run, and of those that wait for a node
    with transaction.atomic():
        before = rows_read(LARGE)
        problems()
        assert rows_read(LARGE) - before < ROWS / 5

    # Given statistics of a time when all jobs waited, all events were pending and one of them had all attempts
    Job.objects.update(status=State.ACCEPTED, node=None, completed_at=None)
    Event.objects.update(state=Event.State.PENDING, settled_at=None)
    Attempt.objects.update(event=Event.objects.earliest("pk"))
    vacuum(LARGE, analyze=True)
    last = Job.objects.latest("uuid")  # it still waits
    Job.objects.exclude(pk=last.pk).update(status=State.COMPLETED, completed_at=timezone.now())
    Job.objects.filter(pk=last.pk).update(created_at=timezone.now() - timedelta(hours=1))
    Event.objects.update(state=Event.State.DELIVERED, settled_at=timezone.now())

    # I expect nothing to be looked for in a whole table, neither page by page nor in the order of its primary key
    for part in PARTS:
        for plan in _plans(part):
            assert not re.search(f"{SEQ_SCAN}|{KEY_SCAN}", plan), plan


def _plans(part: Callable[[], Any]) -> list[str]:
    """Make a part of the page, and return the plans of its statements."""
    with CaptureQueriesContext(connection) as queries:
        part()
    plans = []
    with connection.cursor() as cursor:
        for query in queries.captured_queries:
            if query["sql"].startswith("SELECT"):
                cursor.execute(f"EXPLAIN {query['sql']}")
                plans.append("\n".join(line for (line,) in cursor.fetchall()))
    assert plans, part
    return plans
