"""How fast events for a healthy host are delivered: alone, and beside as many for one that accepts and never answers."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

from tests.bench.table import print_table
from tests.helpers.receiver import Answer, Receiver
from tests.helpers.service_processes import ROOT, Service, installation
from tests.helpers.waiting import wait_for

STREAMS = 1000
ROUNDS = 3
MOST_SECONDS = 300


def main() -> None:
    rows = []
    for number in range(1, ROUNDS + 1):
        alone, beside, together = measure(), measure(dead="before"), measure(dead="together")
        rows.append([str(number), *(f"{seconds:.2f} s" for seconds in (alone, beside, together)), f"{beside / alone:.2f}"])
        rows[-1].append(f"{together / alone:.2f}")
    print_table(
        f"{STREAMS:,} events of {STREAMS:,} jobs to a healthy host: until the last has arrived.\n"
        f"Beside them {STREAMS:,} to a host that takes requests and never answers: published before, or in the same moment.\n"
        "One `deliver`, one `relay`.",
        ["round", "alone", "beside", "same moment", "beside / alone", "same moment / alone"],
        rows,
    )


def measure(dead: Literal["before", "together"] | None = None) -> float:
    """Seconds from the commit of the events for the healthy host until it has them all."""
    with (
        tempfile.TemporaryDirectory() as directory,
        installation(Path(directory)) as service,
        Receiver() as hanging,
        Receiver() as well,
    ):
        hanging.respond = lambda _: Answer(fault="hang")
        service.start("relay")
        service.start("deliver")
        load(service, 1, well.url)
        well.wait_for(1)
        if dead == "before":
            load(service, STREAMS, hanging.url)
            hanging.wait_for(1)
        urls = [hanging.url, well.url] if dead == "together" else [well.url]
        started = load(service, STREAMS, *urls)
        wait_for(lambda: len(well.requests) > STREAMS, MOST_SECONDS, "all events to arrive")
        return time.monotonic() - started


def load(service: Service, streams: int, *urls: str) -> float:
    """When they were committed, on this process' clock."""
    command = [sys.executable, "-m", "tests.bench.stream_load", str(streams), *urls]
    environment = service.environment | {"DJANGO_SETTINGS_MODULE": os.environ["DJANGO_SETTINGS_MODULE"]}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "the load was not committed"
        committed = time.monotonic()
    assert process.returncode == 0
    return committed


if __name__ == "__main__":
    main()
