"""Measure how fast a log that is printed at full speed arrives in `log` events, beside `docker logs --follow`."""

import subprocess
import time
from dataclasses import dataclass
from datetime import datetime

from tests.bench.measuring.bare_engine import IMAGE, docker_command, run_options, seconds_of
from tests.bench.measuring.event_receiver import EventReceiver
from tests.bench.measuring.installation import installation, processes, warm_up
from tests.bench.measuring.results import Row, report
from tests.helpers.service_processes import Service

LINES = 500_000
SCRIPT = f"yes {'x' * 99} | head -n {LINES}"  # 100 bytes with the line feed
TIMES = 2
MAX_SECONDS = 180
MEBIBYTE = 1024**2


@dataclass
class Log:
    """How a log arrived."""

    seconds: float  # from the start of the process to the last line
    delivered: int
    dropped: int


def main() -> None:
    ours, bare = [], []
    with EventReceiver() as receiver, installation() as service:
        warm_up(service, receiver.url)
        followed(service, receiver, SCRIPT.replace(str(LINES), "10000"))
        worker = processes(service, "worker")
        worker.reset_peak()
        at_rest = worker.resident_bytes()
        for _ in range(TIMES):
            ours.append(followed(service, receiver, SCRIPT))
            bare.append(docker_logs())
        growth = (worker.peak_bytes() - at_rest) / MEBIBYTE
    delivered = sum(log.delivered for log in ours)
    rate, bare_rate = delivered / sum(log.seconds for log in ours), TIMES * LINES / sum(bare)
    report(
        f"{TIMES} jobs, each printing {LINES:,} lines of 100 bytes at full speed",
        [
            Row(
                measure="log lines delivered per second",
                value=rate / bare_rate,
                detail=f"{rate:,.0f}/s",
                against=f"docker logs -f: {bare_rate:,.0f}/s",
                target=">= 0.5",
            ),
            Row(
                measure="log lines delivered",
                value=100 * delivered / (TIMES * LINES),
                unit="%",
                detail=f"{sum(log.dropped for log in ours):,} counted as dropped",
                target=">= 100",
            ),
            Row(measure="memory of the worker during a log: growth", value=growth, unit="MiB", target="<= 32"),
        ],
    )


def followed(service: Service, receiver: EventReceiver, script: str) -> Log:
    """Run a job that prints this, and return how its log arrived."""
    receiver.clear()
    identity = service.post_job(command=script, callback={"url": receiver.url, "key": "key"})
    receiver.wait_for("complete", identity, MAX_SECONDS)
    started = datetime.fromisoformat(service.get_job(identity)["startedAt"]).timestamp()
    on_monotonic_clock = started - time.time() + time.monotonic()
    logs = receiver.unique("log")
    dropped = sum(arrival.dropped for arrival in receiver.unique())
    return Log(max(arrival.time for arrival in logs) - on_monotonic_clock, sum(one.lines for one in logs), dropped)


def docker_logs() -> float:
    """Return the seconds from the start of a container's process to the end of `docker logs --follow`."""
    arguments = docker_command("run", "--detach", *run_options(1, 512), IMAGE, "/bin/sh", "-c", SCRIPT)
    name = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.strip()
    try:
        seconds_of(*docker_command("logs", "--follow", name))
        ended = time.time()
        state = subprocess.run(
            docker_command("inspect", "--format={{.State.StartedAt}}", name), check=True, capture_output=True, text=True
        )
        return ended - datetime.fromisoformat(state.stdout.strip()).timestamp()
    finally:
        subprocess.run(docker_command("rm", "--force", name), check=True, capture_output=True)


if __name__ == "__main__":
    main()
