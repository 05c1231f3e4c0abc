"""Measure how long `POST /v1/jobs` takes with 16 clients, idle and while jobs run, beside a bare server that commits as much."""

import json
import multiprocessing
import threading
import time
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from tests.bench.measuring.bare_server import bare_server
from tests.bench.measuring.event_receiver import EventReceiver
from tests.bench.measuring.installation import installation, submit, warm_up
from tests.bench.measuring.results import Row, percentile, report
from tests.bench.throughput import JOB
from tests.helpers.service_processes import Service

CLIENTS = 16
PERIOD_SECONDS = 0.25  # from one POST of a client to its next: 64 a second in all
SECONDS = 20
BARE_SECONDS = 5  # before ours, and again after it
QUICK_JOBS = 500
WARM_UP_SECONDS = 3.0
CPU = 64  # more than a node has: these jobs never run


def main() -> None:
    with EventReceiver() as receiver, installation() as service, bare_server(service.database_url) as bare_url:
        warm_up(service, receiver.url)
        for url in (service.url, bare_url):
            post(url, receiver.url, WARM_UP_SECONDS)
        idle = post(service.url, receiver.url)
        bare_idle = post(bare_url, receiver.url, 2 * BARE_SECONDS)
        submit(service, QUICK_JOBS, JOB | {"callback": {"url": receiver.url, "key": "key"}})
        bare_busy = post(bare_url, receiver.url, BARE_SECONDS)
        busy = post(service.url, receiver.url)
        bare_busy += post(bare_url, receiver.url, BARE_SECONDS)
        assert queued(service), "the jobs ended before the last POST"
        unpaced = post(service.url, receiver.url, SECONDS / 2, period=0.0)
    report(
        f"{CLIENTS} clients on kept-alive connections, {CLIENTS / PERIOD_SECONDS:.0f} POSTs a second in all, {SECONDS} s each",
        [
            row("POST p50, idle", 50, idle, bare_idle),
            row("POST p99, idle", 99, idle, bare_idle, "< 30"),
            row("POST p50, while jobs run", 50, busy, bare_busy),
            row("POST p99, while jobs run", 99, busy, bare_busy, "< 120"),
            Row(
                measure="POSTs per second, clients without a pause",
                value=len(unpaced) / (SECONDS / 2),
                unit="/s",
                detail=f"p50 {percentile(unpaced, 50):.0f} ms, p99 {percentile(unpaced, 99):.0f} ms",
            ),
        ],
    )


def row(measure: str, percent: int, ours: list[float], bare: list[float], target: str = "") -> Row:
    against = f"bare server, one INSERT: {percentile(bare, percent):.3g} ms"
    return Row(measure=measure, value=percentile(ours, percent), unit="ms", against=against, target=target)


def queued(service: Service) -> bool:
    """Return whether there are still jobs for the worker to run."""
    [(count,)] = service.query("SELECT count(*) FROM jobs_job WHERE completed_at IS NULL AND cpu_millis < %s", CPU * 1000)
    return bool(count)


def post(server: str, callback: str, seconds: float = SECONDS, period: float = PERIOD_SECONDS) -> list[float]:
    """Let a new process post to a server for a while. Return the milliseconds that each POST took."""
    job = {"image": "alpine:latest", "command": ["true"], "cpu": CPU, "meta": {"team": "a", "batch": "2026-01"}}
    body = json.dumps(job | {"callback": {"url": callback, "key": "key"}}).encode()
    context = multiprocessing.get_context("spawn")
    latencies: Any = context.SimpleQueue()
    process = context.Process(target=post_for, args=(server, body, seconds, period, latencies))
    process.start()
    found: list[float] = latencies.get()
    process.join()
    return found


def post_for(url: str, body: bytes, seconds: float, period: float, latencies: Any) -> None:
    found: list[float] = []
    begin = time.perf_counter()

    def client(number: int) -> None:
        address = urlsplit(url)
        connection = HTTPConnection(address.hostname or "", address.port, timeout=60)
        due = begin + period * number / CLIENTS
        while due < begin + seconds:
            time.sleep(max(0.0, due - time.perf_counter()))
            started = time.perf_counter()
            connection.request("POST", "/v1/jobs", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            found.append((time.perf_counter() - started) * 1000)
            assert answer.status == 202, answer.status
            due = max(due + period, time.perf_counter())
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    latencies.put(found)


if __name__ == "__main__":
    main()
