"""Measure the memory of one worker and the database connections of all processes while many jobs run."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import docker
from leftovers import INSTANCE_LABEL

from tests.bench.measuring.event_receiver import EventReceiver
from tests.bench.measuring.installation import installation, processes, submit
from tests.bench.measuring.results import Row, report
from tests.bench.measuring.usage import Databases
from tests.helpers.service_processes import Service

JOBS = 500
JOB = {"image": "alpine:latest", "command": ["sleep", "3600"], "cpu": 0.1, "memory": 8}
CLIENTS = 4
START_SECONDS = 240  # then those that run are measured, and the targets are left out
SETTLE_SECONDS = 10
SAMPLES = 20


def main() -> None:
    # More CPU than there is: sleeping jobs do not use what they ask for.
    with EventReceiver() as receiver, installation(CPU_OVERCOMMIT="1000") as service:
        databases = Databases(service.database_url, service.redis_url)
        worker = processes(service, "worker")
        at_rest = worker.proportional_bytes() / 1e6
        submit(service, JOBS, JOB | {"callback": {"url": receiver.url}})
        started = time.monotonic()
        most = 0
        while running(service) < JOBS and time.monotonic() < started + START_SECONDS:
            most = max(most, databases.connections())
            time.sleep(1)
        seconds = time.monotonic() - started
        time.sleep(SETTLE_SECONDS)
        count = running(service)
        memory = worker.proportional_bytes() / 1e6
        connections = []
        for _ in range(SAMPLES):
            connections.append(databases.connections())
            time.sleep(0.5)
        service.kill("worker")  # it would wait for the containers
        remove_containers(service)
    report(
        f"{count} of {JOBS} jobs run `sleep` in one worker, {seconds:.0f} s after they were submitted",
        [
            Row(
                measure="memory of a worker with 500 running jobs (PSS)",
                value=memory,
                unit="MB",
                detail=f"{at_rest:.0f} at rest; {count} running",
                target="< 180" if count == JOBS else "",
            ),
            Row(
                measure="database connections of all processes with 500 running jobs",
                value=max(connections),
                detail=f"{most} while they started",
                target="<= 24" if count == JOBS else "",
            ),
        ],
    )


def running(service: Service) -> int:
    [(count,)] = service.query("SELECT count(*) FROM jobs_job WHERE status = 'running'")
    return int(count)


def remove_containers(service: Service) -> None:
    """Remove the containers of the installation, several at once: one after the other takes minutes."""
    [(instance,)] = service.query("SELECT name FROM jobs_instance")
    with closing(docker.from_env(timeout=300)) as client, ThreadPoolExecutor(CLIENTS) as pool:
        ours = client.containers.list(all=True, filters={"label": f"{INSTANCE_LABEL}={instance}"}, ignore_removed=True)
        for removal in [pool.submit(container.remove, force=True, v=True) for container in ours]:
            with suppress(docker.errors.APIError):  # what is left is removed once more with the installation
                removal.result()


if __name__ == "__main__":
    main()
