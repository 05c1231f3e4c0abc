"""Measure the time from the submission of a job to its `exit` event, beside `docker run` of the same container."""

import statistics
import time

from tests.bench.measuring.bare_engine import IMAGE, docker_command, run_options, seconds_of
from tests.bench.measuring.event_receiver import EventReceiver
from tests.bench.measuring.installation import installation, warm_up
from tests.bench.measuring.results import Row, percentile, report
from tests.helpers.service_processes import Service

JOBS = 30
COMMAND = ["echo", "done"]
CPU, MEMORY = 1, 512
PAUSE_SECONDS = 0.3  # after each, so that what ends one does not delay the next


def main() -> None:
    bare_command = docker_command("run", "--rm", *run_options(CPU, MEMORY), IMAGE, *COMMAND)
    with EventReceiver() as receiver, installation() as service:
        warm_up(service, receiver.url)
        seconds_of(*bare_command)
        ours, bare = [], []
        for _ in range(JOBS):
            ours.append(submitted(service, receiver))
            time.sleep(PAUSE_SECONDS)
            bare.append(seconds_of(*bare_command))
            time.sleep(PAUSE_SECONDS)
    median, bare_median = statistics.median(ours), statistics.median(bare)
    report(
        f"From the submission to the exit event, idle, {JOBS} jobs in turn with {JOBS} `docker run --rm`",
        [
            Row(
                measure="submit to exit event, idle",
                value=median / bare_median,
                detail=f"{median * 1000:.0f} ms",
                against=f"docker run: {bare_median * 1000:.0f} ms",
                target="<= 0.75",
            ),
            Row(
                measure="submit to exit event, idle: p90",
                value=percentile(ours, 90) * 1000,
                unit="ms",
                against=f"docker run: {percentile(bare, 90) * 1000:.0f} ms",
            ),
        ],
    )


def submitted(service: Service, receiver: EventReceiver) -> float:
    """Submit a job, wait for its last event, and return the seconds until its exit event had arrived."""
    started = time.monotonic()
    identity = service.post_job(command=COMMAND, cpu=CPU, memory=MEMORY, callback={"url": receiver.url, "key": "key"})
    exited = receiver.wait_for("exit", identity)
    receiver.wait_for("complete", identity)
    return exited.time - started


if __name__ == "__main__":
    main()
