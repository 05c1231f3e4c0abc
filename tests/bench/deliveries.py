"""How fast events for a host that is well are through: alone, and beside as many for one that accepts and never answers."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.bench.table import print_table
from tests.receiver import Answer, Received, Receiver
from tests.services import ROOT, Service, installation
from tests.waiting import wait_for

STREAMS = 1000
ROUNDS = 3
MOST_SECONDS = 300


class Clock:
    """Remembers when the first request came, to whichever receiver."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.first: float | None = None

    def answer(self, _: Received) -> Answer:
        with self._lock:
            self.first = self.first or time.monotonic()
        return Answer()

    def hang(self, received: Received) -> Answer:
        self.answer(received)
        return Answer(fault="hang")


def main() -> None:
    rows = []
    for number in range(1, ROUNDS + 1):
        alone, beside = measure(with_dead=False), measure(with_dead=True)
        rows.append([str(number), f"{alone:.2f} s", f"{beside:.2f} s", f"{beside / alone:.2f}"])
    print_table(
        f"{STREAMS:,} events of {STREAMS:,} jobs to a host that is well, first to last (one `deliver`, one `relay`)",
        ["round", "alone", f"beside {STREAMS:,} for a host that never answers", "ratio"],
        rows,
    )


def measure(*, with_dead: bool) -> float:
    """Seconds from the first request to whichever host until the host that is well has all its events."""
    with tempfile.TemporaryDirectory() as directory, installation(Path(directory)) as service:
        clock = Clock()
        with Receiver() as dead, Receiver() as well:
            dead.respond, well.respond = clock.hang, clock.answer
            if with_dead:
                load(service, dead.url)
            load(service, well.url)
            service.empty_redis()
            service.start("relay")
            service.start("deliver")
            wait_for(lambda: len(well.requests) >= STREAMS, MOST_SECONDS, "all events to arrive")
            assert clock.first is not None
            return time.monotonic() - clock.first


def load(service: Service, url: str) -> None:
    command = [sys.executable, "-m", "tests.bench.stream_load", url, str(STREAMS)]
    environment = service.environment | {"DJANGO_SETTINGS_MODULE": os.environ["DJANGO_SETTINGS_MODULE"]}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


if __name__ == "__main__":
    main()
