"""What the start page of the admin reads: as much from large tables as from small ones."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from orchestrator_site.admin.start_page import charts, counts, history
from orchestrator_site.admin.start_page.attention import problems
from orchestrator_site.admin.start_page.counts import live_counts
from tests.helpers.admin_data import fill

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite does not count rows"),
]
ROWS = 5000
LIMIT = 50
LARGE = ("jobs_job", "callbacks_subscription", "callbacks_event", "callbacks_attempt")
PARTS: list[Callable[[], Any]] = [problems, live_counts, charts.charts]


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Store jobs in all states with an event and an attempt each, and lower the limits accordingly."""
    fill(ROWS)
    with connection.cursor() as cursor:
        cursor.execute(f"VACUUM ANALYZE {', '.join(LARGE)}")  # as PostgreSQL does by itself, later
    monkeypatch.setattr(counts, "MAX_COUNTED", LIMIT)
    monkeypatch.setattr(history, "MAX_READ", LIMIT)


def rows_read() -> int:
    """Return how many rows and index entries of the large tables this transaction has read."""
    tables = ", ".join(f"'{table}'::regclass" for table in LARGE)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT sum(pg_stat_get_xact_tuples_returned(oid)) FROM pg_class "
            f"WHERE oid IN ({tables}) OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid IN ({tables}))"
        )
        return int(cursor.fetchone()[0])


@pytest.mark.usefixtures("many")
def test_each_part_reads_a_few_rows_of_large_tables() -> None:  # one test, since storing the rows takes the time
    for part in PARTS:
        # When a part of the page is made
        with transaction.atomic():
            before = rows_read()
            with CaptureQueriesContext(connection) as queries:
                part()
            read = rows_read() - before
            plans = [_plan(query["sql"]) for query in queries if query["sql"].startswith("SELECT")]

        # I expect it to read a small part of them, by indexes
        assert read < ROWS / 5, part
        assert plans, part
        for plan in plans:
            for table in LARGE:
                assert not re.search(rf"Seq Scan on {table}", plan), plan


def _plan(sql: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {sql}")
        return "\n".join(line for (line,) in cursor.fetchall())
