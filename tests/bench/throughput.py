"""Measure how many quick jobs per second the service completes, beside a loop of the Docker SDK."""

import os
import time

from tests.bench.measuring.bare_engine import jobs_per_second
from tests.bench.measuring.event_receiver import EventReceiver
from tests.bench.measuring.installation import installation, processes, submit, warm_up
from tests.bench.measuring.results import Row, report
from tests.bench.measuring.usage import Databases, engine_processes
from tests.helpers.service_processes import Service

JOBS = 200
COMMAND = ["echo", "done"]
CPU, MEMORY = 0.5, 64  # 16 jobs fit at once on two cores
JOB = {"image": "alpine:latest", "command": COMMAND, "cpu": CPU, "memory": MEMORY}
AT_ONCE = (2, 4, 8, 16)
TRIAL = 16  # containers, to find the best of these
BARE_JOBS = 60  # before ours, and again after them
MAX_SECONDS = 240


def main() -> None:
    with EventReceiver() as receiver, installation() as service:
        warm_up(service, receiver.url, 16)
        trials = {at_once: bare(TRIAL, at_once) for at_once in AT_ONCE}
        best = max(trials, key=lambda at_once: trials[at_once])
        before = bare(BARE_JOBS, best)
        ours, cpu = complete_jobs(service, receiver)
        after = bare(BARE_JOBS, best)
    bare_rate = 2 / (1 / before + 1 / after)
    report(
        f"{JOBS} quick jobs queued, callbacks on: jobs per second until the last `complete` has arrived",
        [
            Row(
                measure="jobs/s, 200 quick jobs queued",
                value=ours / bare_rate,
                detail=f"{ours:.1f}/s",
                against=f"Docker SDK loop, {best} at once: {bare_rate:.1f}/s",
                target=">= 1.3",
            ),
            *(Row(measure=f"CPU per job: {name}", value=milliseconds, unit="ms") for name, milliseconds in cpu.items()),
        ],
    )


def bare(jobs: int, at_once: int) -> float:
    return jobs_per_second(jobs, at_once, CPU, MEMORY, COMMAND)


def complete_jobs(service: Service, receiver: EventReceiver) -> tuple[float, dict[str, float]]:
    """Return jobs per second, and the milliseconds of processor time per job by process.

    The jobs are queued while the worker stands still, so that the time to submit them does not count.
    """
    databases = Databases(service.database_url, service.redis_url)
    groups = {name: processes(service, name) for name in ("worker", "deliver", "relay")}
    groups |= {"PostgreSQL": databases.postgresql, "Redis": databases.redis}
    if os.environ["DOCKER_HOST"].startswith("unix:"):
        groups["dockerd, containerd"] = engine_processes(os.environ["DOCKER_HOST"])
    receiver.clear()
    service.freeze("worker")
    submit(service, JOBS, JOB | {"callback": {"url": receiver.url, "key": "key"}})
    before = {name: group.cpu_seconds() for name, group in groups.items()}
    started = time.monotonic()
    service.thaw("worker")
    completed = receiver.wait_for_count(JOBS, MAX_SECONDS, "complete")
    cpu = {name: (group.cpu_seconds() - before[name]) * 1000 / JOBS for name, group in groups.items()}
    return JOBS / (max(arrival.time for arrival in completed) - started), cpu


if __name__ == "__main__":
    main()
