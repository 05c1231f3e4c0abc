"""Measure how many durable deliveries per second one `deliver` process makes, beside a bare loop of `requests`."""

import multiprocessing
import threading
import time
from dataclasses import dataclass

import requests

from tests.bench.measuring.event_publisher import publisher
from tests.bench.measuring.event_receiver import Arrival, EventReceiver
from tests.bench.measuring.installation import installation, processes, undelivered
from tests.bench.measuring.results import Row, report
from tests.bench.measuring.usage import Databases, ProcessGroup
from tests.helpers.service_processes import Service
from tests.helpers.waiting import wait_for

JOBS, EVENTS = 1000, 10
BACKLOG_EVENTS = 3
BARE_REQUESTS = 8000
BARE_THREADS = 8
BODY = b"x" * 400  # the size of the published events
HEADERS = {"Content-Type": "application/cloudevents+json", "X-Signature-256": "sha256=" + "0" * 64, "Event-Id": "0" * 36}
MAX_SECONDS = 240


@dataclass
class Load:
    """What was measured with one load of events."""

    per_second: float
    published_per_second: float
    cpu: dict[str, float]  # milliseconds per event, by process


def main() -> None:
    with EventReceiver() as receiver, installation("deliver", "relay") as service:
        before = bare_per_second(receiver.url)
        meanwhile = deliver(service, receiver, events=EVENTS, published_before=False)
        backlog = deliver(service, receiver, events=BACKLOG_EVENTS, published_before=True)
        after = bare_per_second(receiver.url)
    bare = 2 / (1 / before + 1 / after)
    against = f"requests, {BARE_THREADS} threads: {bare:,.0f}/s"
    report(
        f"{JOBS * EVENTS:,} events of {JOBS:,} jobs, published in a transaction each while one `deliver` process sends them",
        [
            Row(
                measure="durable deliveries",
                value=meanwhile.per_second / bare,
                detail=f"{meanwhile.per_second:,.0f}/s",
                against=against,
                target=">= 0.3",
            ),
            Row(measure="durable deliveries per second", value=meanwhile.per_second, unit="/s", target=">= 700"),
            Row(
                measure="CPU of all processes per event, published and delivered",
                value=sum(meanwhile.cpu.values()),
                unit="ms",
                detail=", ".join(f"{name} {milliseconds:.2f}" for name, milliseconds in meanwhile.cpu.items()),
                target="<= 2.5",
            ),
            Row(measure="events published per second meanwhile", value=meanwhile.published_per_second, unit="/s"),
            Row(measure="deliveries per second of a backlog", value=backlog.per_second, unit="/s", against=against),
        ],
    )


def deliver(service: Service, receiver: EventReceiver, *, events: int, published_before: bool) -> Load:
    """Publish this many events for each job, and wait until all have arrived in order."""
    receiver.clear()
    databases = Databases(service.database_url, service.redis_url)
    with publisher(service, receiver.url, jobs=JOBS, events=events) as publishing:
        groups = {name: processes(service, name) for name in ("deliver", "relay")} | {
            "publisher": ProcessGroup.of_sessions([publishing.process.pid]),
            "PostgreSQL": databases.postgresql,
            "Redis": databases.redis,
        }
        total = JOBS * events
        if published_before:
            service.freeze("deliver")
        before = {name: group.cpu_seconds() for name, group in groups.items()}
        publishing.start()
        started = time.monotonic()
        if published_before:
            wait_for(lambda: undelivered(service) == total, MAX_SECONDS, "all events to be published", 0.1)
            started = time.monotonic()
            service.thaw("deliver")
        arrivals = receiver.wait_for_count(total, MAX_SECONDS)
        wait_for(lambda: not undelivered(service), MAX_SECONDS, "the results of all deliveries to be stored", 0.1)
        cpu = {name: (group.cpu_seconds() - before[name]) * 1000 / total for name, group in groups.items()}
        commits = publishing.commits().values()
    check_order(receiver.arrivals)
    end = max(arrival.time for arrival in arrivals)
    return Load(total / (end - started), total / (max(commits) - min(commits)), cpu)


def check_order(arrivals: list[Arrival]) -> None:
    """Raise if an event arrived for the first time after a later one of its job."""
    last: dict[str, int] = {}
    for arrival in arrivals:
        assert arrival.sequence <= last.get(arrival.job, 0) + 1, f"event {arrival.sequence} of {arrival.job} arrived too early"
        last[arrival.job] = max(last.get(arrival.job, 0), arrival.sequence)


def bare_per_second(url: str) -> float:
    """Return the requests per second of some threads of a new process, with a session each."""
    context = multiprocessing.get_context("spawn")
    rates = context.SimpleQueue()
    process = context.Process(target=post_all, args=(url, rates))
    process.start()
    rate: float = rates.get()
    process.join()
    return rate


def post_all(url: str, rates: "multiprocessing.SimpleQueue[float]") -> None:
    def post() -> None:
        with requests.Session() as session:
            session.trust_env = False
            for _ in range(BARE_REQUESTS // BARE_THREADS):
                session.post(url, data=BODY, headers=HEADERS, timeout=15)

    threads = [threading.Thread(target=post) for _ in range(BARE_THREADS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rates.put(BARE_REQUESTS / (time.perf_counter() - started))


if __name__ == "__main__":
    main()
