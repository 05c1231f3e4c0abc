"""Measure a delivery with no delivered event in the database and with a million, and print the plans of its queries."""

import statistics
import time
from typing import Any

import django
from django.conf import settings
from django.db import connection

from tests.bench.measuring.results import print_table
from tests.helpers.receiver import Receiver

STREAMS = 500
DELIVERED = 1_000_000
OLD_STREAMS = 10_000
_TABLES = "callbacks_event, callbacks_subscription, callbacks_attempt, callbacks_destination"
_FILL = f"""
INSERT INTO callbacks_destination (origin, used_at, paused, failures, openings, throttles, "window", waiting)
    SELECT 'https://old-' || n || '.example:443', now(), false, 0, 0, 0, 8, false FROM generate_series(1, {OLD_STREAMS}) n;
INSERT INTO callbacks_subscription (stream, subject, url, destination_id, types, last_sequence, bulk_refused)
    SELECT gen_random_uuid(), 'old', '', id, '[]', {DELIVERED // OLD_STREAMS}, false FROM callbacks_destination
    WHERE origin LIKE 'https://old-%';
INSERT INTO callbacks_event (id, subscription_id, sequence, type, source, time, body, state, tries, silences, created_at,
        expires_at, settled_at)
    SELECT gen_random_uuid(), id, n, 'orchestrator.job.log', 'orchestrator/service', '', repeat('x', 300)::bytea, 'delivered',
        1, 0, now(), now(), now() FROM callbacks_subscription, generate_series(1, {DELIVERED // OLD_STREAMS}) n
    WHERE subject = 'old';
"""


def main() -> None:
    from django.core.management import call_command

    call_command("migrate", interactive=False, verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {_TABLES} CASCADE")
    empty = measure()
    with connection.cursor() as cursor:
        cursor.execute(_FILL)
        cursor.execute("VACUUM (ANALYZE)")  # so that the server is idle otherwise
        cursor.execute("CHECKPOINT")
    full = measure()
    rows = [
        [what, f"{empty[what]:.2f} ms", f"{full[what]:.2f} ms", f"{full[what] / empty[what]:.2f}"]
        for what in ("find what is due", "deliver an event")
    ]
    print_table(
        f"Medians, {STREAMS} one-event streams to a receiver in this process",
        ["", "no delivered event", f"{DELIVERED:,} delivered events of {OLD_STREAMS:,} jobs", "ratio"],
        rows,
    )
    print_plans()


def measure() -> dict[str, float]:
    """Return the medians in milliseconds."""
    from callbacks.delivery import due_streams
    from callbacks.delivery.stream_delivery import Deliverer
    from tests.bench.measuring.stream_load import load
    from tests.helpers.delivery_fixtures import deliver

    deliverer = Deliverer()
    with Receiver() as receiver:
        load(STREAMS, receiver.url)
        looking = [timed(lambda: due_streams.due(100)) for _ in range(50)]
        delivering = [timed(lambda identity=identity: deliver(deliverer, identity)) for identity in due_streams.due(STREAMS)]
        assert len(receiver.requests) == STREAMS
    return {"find what is due": statistics.median(looking), "deliver an event": statistics.median(delivering)}


def timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def print_plans() -> None:
    """Print PostgreSQL's plan for each query of a delivery and of the relay, with a million rows."""
    from callbacks.delivery import destination_queue, due_streams
    from callbacks.delivery.stream_delivery import Deliverer
    from callbacks.models import Destination
    from tests.bench.measuring.stream_load import load
    from tests.helpers.delivery_fixtures import deliver

    statements: dict[str, Any] = {}

    def keep(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.lstrip().startswith("SELECT"):
            statements.setdefault(sql, params)
        return execute(sql, params, many, context)

    with Receiver() as receiver, connection.execute_wrapper(keep):
        load(2, receiver.url)
        statements.clear()
        for identity in due_streams.due(100):
            deliver(Deliverer(), identity)
        destination_queue.wake_available()
        destination_queue.wake_waiting(Destination.objects.order_by("-pk").values_list("pk", flat=True)[0])
    with connection.cursor() as cursor:
        for sql, params in statements.items():
            cursor.execute(f"EXPLAIN (COSTS OFF) {sql}", params)
            print(f"\n{shortened(sql)}")
            for (line,) in cursor.fetchall():
                print(f"    {line}")


def shortened(sql: str) -> str:
    """Return a query without its columns."""
    return "SELECT … FROM " + sql.partition(" FROM ")[2]


if __name__ == "__main__":
    assert settings.DATABASES
    django.setup()
    main()
