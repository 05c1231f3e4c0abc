"""Measure what the processes of the Procfile use while there is nothing to do."""

import time

from tests.bench.measuring.event_receiver import EventReceiver
from tests.bench.measuring.installation import installation, processes, warm_up
from tests.bench.measuring.results import Row, report
from tests.bench.measuring.usage import Databases

SETTLE_SECONDS = 20
SECONDS = 30
MEGABYTE = 1e6


def main() -> None:
    with EventReceiver() as receiver, installation() as service:
        warm_up(service, receiver.url)
        time.sleep(SETTLE_SECONDS)
        databases = Databases(service.database_url, service.redis_url)
        groups = {name: processes(service, name) for name in service.processes}
        all_groups = groups | {"PostgreSQL": databases.postgresql, "Redis": databases.redis}
        transactions = databases.transactions()  # first: the new connection takes processor time of PostgreSQL
        before, started = {name: group.cpu_seconds() for name, group in all_groups.items()}, time.monotonic()
        time.sleep(SECONDS)
        elapsed = time.monotonic() - started
        cpu = {name: (group.cpu_seconds() - before[name]) * 100 / elapsed for name, group in all_groups.items()}
        transactions = databases.transactions() - transactions
        memory = {name: group.proportional_bytes() / MEGABYTE for name, group in groups.items()}
        connections = databases.connections()
    report(
        f"At rest for {SECONDS} s, after some jobs",
        [
            Row(
                measure="idle: CPU of all processes and databases",
                value=sum(cpu.values()),
                unit="% of a core",
                detail=", ".join(f"{name} {share:.2f}" for name, share in cpu.items()),
                target="< 1",
            ),
            Row(measure="idle: transactions per second", value=transactions / elapsed, unit="/s", target="< 4"),
            Row(
                measure="memory at rest (PSS), production",
                value=sum(memory.values()),
                unit="MB",
                detail=", ".join(f"{name} {size:.0f}" for name, size in memory.items()),
                target="<= 320",
            ),
            Row(measure="idle: database connections", value=connections),
        ],
    )


if __name__ == "__main__":
    main()
