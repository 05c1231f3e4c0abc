"""Measure a scrape of the metrics with a million jobs in the database, beside a thousand."""

import statistics
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Final

from orchestrator_site.base.intervals import MetricsIntervals
from tests.bench.measuring.installation import installation
from tests.bench.measuring.many_jobs import fill
from tests.bench.measuring.results import Row, print_table, report
from tests.bench.measuring.usage import Databases
from tests.helpers.service_processes import Service

FEW, MANY = 1_000, 1_000_000
SCRAPES = 30
PAUSE = MetricsIntervals().fresh * 1.1  # after that, what was read before is not shown again
UNDECIDED = 100  # of each: waiting jobs, running jobs, pending events, dead events
EVENTS_OF_A_JOB = 1

_UNDECIDED: Final = """
UPDATE jobs_job SET completed_at = NULL, exited_at = NULL, finished_at = NULL, exit_code = NULL, reason = '',
    status = CASE WHEN number <= {undecided} THEN 'accepted' ELSE 'running' END
    FROM (SELECT uuid AS newest, row_number() OVER (ORDER BY uuid DESC) AS number FROM jobs_job
        ORDER BY uuid DESC LIMIT 2 * {undecided}) AS undecided WHERE uuid = newest
"""
_DESTINATION: Final = """
INSERT INTO callbacks_destination (origin, used_at, paused, failures, openings, throttles, "window", waiting)
    VALUES ('https://receiver.example', now(), false, 0, 0, 0, 8, false)
"""
_SUBSCRIPTIONS: Final = """
INSERT INTO callbacks_subscription (stream, subject, url, destination_id, types, last_sequence, bulk_refused)
    SELECT uuid, jobs_job.id, '', callbacks_destination.id, '[]', {of_a_job}, false FROM jobs_job, callbacks_destination
    ORDER BY uuid
"""
_EVENTS: Final = """
INSERT INTO callbacks_event (id, subscription_id, sequence, type, source, time, body, state, tries, silences, created_at,
        expires_at, settled_at)
    SELECT gen_random_uuid(), id, sequence, 'orchestrator.job.exit', 'orchestrator/service', '', repeat('x', 300)::bytea,
        CASE WHEN number > {undecided} * 2 THEN 'delivered' WHEN number > {undecided} THEN 'dead' ELSE 'pending' END,
        1, 0, now(), now(), now()
    FROM (SELECT id, row_number() OVER (ORDER BY id DESC) AS number FROM callbacks_subscription) AS subscription,
        generate_series(1, {of_a_job}) sequence
"""


@dataclass
class Measured:
    """The scrapes of an installation."""

    service: Service
    seconds: list[float] = field(default_factory=list)  # without the first, which also looks which images are used most
    first: float = 0
    length: int = 0
    transactions: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def main() -> None:
    with (
        installation("web", "metrics", WEB_CONCURRENCY="1") as small,
        installation("web", "metrics", WEB_CONCURRENCY="1") as large,
    ):
        statements = [
            text.format(undecided=UNDECIDED, of_a_job=EVENTS_OF_A_JOB)
            for text in (_UNDECIDED, _DESTINATION, _SUBSCRIPTIONS, _EVENTS)
        ]
        fill(small, FEW, *statements)
        fill(large, MANY, *statements)
        few, many = measured = Measured(small), Measured(large)
        measure(measured)
    print_table(
        f"GET /metrics, {SCRAPES} scrapes",
        ["", f"{MANY:,} jobs", f"{FEW:,} jobs"],
        [
            ["median", *(f"{one.median * 1000:.1f} ms" for one in (many, few))],
            ["slowest", *(f"{max(one.seconds) * 1000:.1f} ms" for one in (many, few))],
            ["the first, which also looks at the images", *(f"{one.first * 1000:.1f} ms" for one in (many, few))],
            ["transactions of a scrape", *(f"{one.transactions / SCRAPES:.1f}" for one in (many, few))],
            ["length of the answer", *(f"{one.length:,} bytes" for one in (many, few))],
        ],
    )
    report(
        "The median",
        [
            Row(
                measure="a scrape of the metrics",
                value=many.median / few.median,
                detail=f"{many.median * 1000:.1f} ms",
                against=f"with {FEW:,} jobs: {few.median * 1000:.1f} ms",
                target="<= 1.1",
            )
        ],
    )


def measure(measured: tuple[Measured, ...]) -> None:
    """Scrape the installations in turn, as Prometheus does: over connections that are kept."""
    connections = [HTTPConnection("127.0.0.1", int(one.service.environment["METRICS_PORT"]), timeout=60) for one in measured]
    databases = [Databases(one.service.database_url, one.service.redis_url) for one in measured]
    for one, connection in zip(measured, connections, strict=True):
        one.first, one.length = scrape(connection)
    before = [database.transactions() for database in databases]
    for _ in range(SCRAPES):
        time.sleep(PAUSE)
        for one, connection in zip(measured, connections, strict=True):
            seconds, one.length = scrape(connection)
            one.seconds.append(seconds)
    for one, connection, database, earlier in zip(measured, connections, databases, before, strict=True):
        connection.close()
        one.transactions = database.transactions() - earlier


def scrape(connection: HTTPConnection) -> tuple[float, int]:
    """Return the seconds to the end of the answer, and its length."""
    started = time.perf_counter()
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    body = answer.read()
    elapsed = time.perf_counter() - started
    assert answer.status == 200, body
    assert b"database_up 1.0" in body, body
    assert f'jobs_active{{status="accepted"}} {UNDECIDED:.1f}'.encode() in body, body
    return elapsed, len(body)


if __name__ == "__main__":
    main()
