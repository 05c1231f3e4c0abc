"""Measure deliveries to a healthy host: alone, and beside as many for a host that accepts requests and never answers."""

import os
import subprocess
import sys
import time
from typing import Literal

from tests.bench.measuring.installation import installation
from tests.bench.measuring.results import print_table
from tests.helpers.receiver import Answer, Receiver
from tests.helpers.service_processes import ROOT, Service
from tests.helpers.waiting import wait_for

STREAMS = 1000
ROUNDS = 3
MAX_SECONDS = 300


def main() -> None:
    rows = []
    for number in range(1, ROUNDS + 1):
        alone, beside, together = measure(), measure(dead="before"), measure(dead="together")
        rows.append([str(number), *(f"{seconds:.2f} s" for seconds in (alone, beside, together)), f"{beside / alone:.2f}"])
        rows[-1].append(f"{together / alone:.2f}")
    print_table(
        f"{STREAMS:,} events of {STREAMS:,} jobs to a healthy host: time until the last has arrived.\n"
        f"Beside them, {STREAMS:,} to a host that accepts requests and never answers, published before or at the same time.\n"
        "One `deliver`, one `relay`.",
        ["round", "alone", "beside", "same time", "beside / alone", "same time / alone"],
        rows,
    )


def measure(dead: Literal["before", "together"] | None = None) -> float:
    """Return the seconds from the commit of the events for the healthy host until it has received all of them."""
    with installation("relay", "deliver") as service, Receiver() as hanging, Receiver() as healthy:
        hanging.respond = lambda _: Answer(fault="hang")
        load(service, 1, healthy.url)
        healthy.wait_for(1)
        if dead == "before":
            load(service, STREAMS, hanging.url)
            hanging.wait_for(1)
        urls = [hanging.url, healthy.url] if dead == "together" else [healthy.url]
        started = load(service, STREAMS, *urls)
        wait_for(lambda: len(healthy.requests) > STREAMS, MAX_SECONDS, "all events to arrive")
        return time.monotonic() - started


def load(service: Service, streams: int, *urls: str) -> float:
    """Publish the events in another process, and return when they were committed, on the clock of this one."""
    command = [sys.executable, "-m", "tests.bench.measuring.stream_load", str(streams), *urls]
    environment = service.environment | {"DJANGO_SETTINGS_MODULE": os.environ["DJANGO_SETTINGS_MODULE"]}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "the load was not committed"
        committed = time.monotonic()
    assert process.returncode == 0
    return committed


if __name__ == "__main__":
    main()
