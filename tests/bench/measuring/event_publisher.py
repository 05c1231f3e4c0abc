"""Publish events as the service does, each in a transaction of its own, in a process of its own.

    python -m tests.bench.measuring.event_publisher URL JOBS EVENTS RATE THREADS

This is a program, so that it can run in the environment of any installation. It prints `ready` once all streams are subscribed,
and begins when it reads a line. It publishes EVENTS for each of the JOBS in turn, RATE a second, or without a pause if RATE is 0.
At the end it prints a line for each event: `<time of its commit on the monotonic clock> <job> <jobsequence>`.
"""

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import django
from django.db import connection, transaction

from tests.helpers.service_processes import ROOT, Service

MODULE = "tests.bench.measuring.event_publisher"
DATA = {"meta": {"team": "a", "batch": "2026-01"}}


@dataclass
class Publisher:
    """The parent's side: a program that has subscribed its streams and waits for `start`."""

    process: subprocess.Popen[bytes]

    def start(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def commits(self) -> dict[tuple[str, int], float]:
        """Wait until all is published. Return the time of each commit by job and jobsequence."""
        assert self.process.stdout is not None
        lines = [line.split() for line in self.process.stdout.read().decode().splitlines()]
        assert self.process.wait() == 0
        return {(job, int(sequence)): float(time) for time, job, sequence in lines}


@contextmanager
def publisher(service: Service, url: str, *, jobs: int, events: int, rate: int = 0, threads: int = 4) -> Iterator[Publisher]:
    """Run the program. It ends with the context."""
    command = [sys.executable, "-m", MODULE, url, *map(str, (jobs, events, rate, threads))]
    environment = service.environment | {"DJANGO_SETTINGS_MODULE": os.environ["DJANGO_SETTINGS_MODULE"]}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n", "the publisher ended"
            yield Publisher(process)
        finally:
            process.kill()


def main(url: str, jobs: int, events: int, rate: int, threads: int) -> None:
    from callbacks import outbox
    from tests.helpers import factories

    streams = [(f"job-{uuid.uuid4()}", uuid.uuid4()) for _ in range(jobs)]
    with transaction.atomic():
        for subject, stream in streams:
            factories.subscribe(stream, subject, url, keys=("key",))
    print("ready", flush=True)
    sys.stdin.readline()
    commits: list[tuple[float, str, int]] = []
    started = time.monotonic()

    def record(subject: str, sequence: int) -> None:
        commits.append((time.monotonic(), subject, sequence))

    def publish(first: int) -> None:
        # Each thread has streams of its own, so that the events of one are published in order.
        for sequence in range(1, events + 1):
            for number in range(first, jobs, threads):
                if rate:
                    due = started + ((sequence - 1) * jobs + number) / rate
                    time.sleep(max(0.0, due - time.monotonic()))
                subject, stream = streams[number]
                with transaction.atomic():
                    # The first callback: it runs before the message to `deliver` is sent.
                    transaction.on_commit(partial(record, subject, sequence))
                    outbox.publish(stream, "orchestrator.job.start", "orchestrator/service", {"jobId": subject, **DATA})
        connection.close()

    workers = [threading.Thread(target=publish, args=(first,)) for first in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for when, subject, sequence in commits:
        print(when, subject, sequence)


if __name__ == "__main__":
    django.setup()
    main(sys.argv[1], *map(int, sys.argv[2:]))
