"""A worker with two hundred jobs is killed: the next one adopts all of them within seconds."""

import os
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import docker
import pytest

from jobs.running.container_labels import INSTANCE_LABEL, UUID_LABEL
from tests.helpers.service_processes import Service
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.production, pytest.mark.long, pytest.mark.timeout(400)]

JOBS = 200
ADOPTED_WITHIN = 10.0  # seconds, from the start of the process
HANDED_OVER_WITHIN = 5.0
COMMAND = "i=0; while true; do i=$((i+1)); echo line $i; sleep 5; done"


@pytest.fixture
def engine() -> Iterator[docker.APIClient]:
    with closing(docker.APIClient(base_url=os.environ["DOCKER_HOST"], timeout=60)) as client:
        yield client


def test_two_hundred_running_jobs_are_adopted_in_seconds(service: Service, engine: docker.APIClient) -> None:
    # Given 200 running jobs that print
    for kind in ("web", "relay", "deliver"):
        service.start(kind)
    service.start("worker")
    jobs = [service.post_job(command=COMMAND, cpu=0.01, memory=8) for _ in range(JOBS)]
    wait_for(lambda: count(service, "status = 'running'") == JOBS, 200, "all to run")
    before = processes(service, engine)
    assert len(before) == JOBS

    # When their worker is killed and another one is started
    service.kill("worker")
    lines = lines_of(service)
    started = time.monotonic()
    service.restart("worker")

    # I expect it to adopt all of them soon, each container renamed to the new claim
    wait_until_renamed(service, engine, JOBS)
    took = time.monotonic() - started
    assert took < ADOPTED_WITHIN, f"it took {took:.1f} s"
    assert count(service, "claims = 2 AND owner_id = (SELECT id FROM jobs_worker)") == JOBS
    assert all(one["Names"][0].endswith("-2") for one in containers(service, engine))

    # And every log to be followed, and no process to have been started again
    wait_for(lambda: all(now > lines[uuid] for uuid, now in lines_of(service).items()), 30, "more lines of each")
    assert processes(service, engine) == before

    # And to release all of them when it is stopped
    asked = time.monotonic()
    service.terminate("worker")
    took = time.monotonic() - asked
    assert took < HANDED_OVER_WITHIN, f"it took {took:.1f} s"
    assert count(service, "owner_id IS NULL") == JOBS

    # And nothing to be left when the next worker finds all of them cancelled
    service.restart("worker")
    for job_id in jobs:
        assert service.request("DELETE", f"/v1/jobs/{job_id}").status_code == 204
    wait_for(lambda: count(service, "completed_at IS NOT NULL") == JOBS, 100, "all to end")
    wait_for(lambda: containers(service, engine) == [], 30, "the containers to go")
    assert count(service, "status = 'cancelled'") == JOBS
    assert service.query("SELECT cpu_millis_reserved, memory_mib_reserved FROM jobs_node") == [(0, 0)]


def count(service: Service, condition: str) -> int:
    return int(service.query(f"SELECT count(*) FROM jobs_job WHERE {condition}")[0][0])


def lines_of(service: Service) -> dict[str, int]:
    """Return the number of stored lines for each job's uuid."""
    return dict(service.query("SELECT uuid, log_next FROM jobs_job"))


def labels(service: Service) -> list[str]:
    """Return the labels of the containers of jobs."""
    return [f"{INSTANCE_LABEL}={service.query('SELECT name FROM jobs_instance')[0][0]}", UUID_LABEL]


def containers(service: Service, engine: docker.APIClient) -> list[dict[str, Any]]:
    """Return the engine's containers of this installation's jobs."""
    found: list[dict[str, Any]] = engine.containers(all=True, filters={"label": labels(service)})
    return found


def wait_until_renamed(service: Service, engine: docker.APIClient, number: int) -> None:
    """Wait for the engine's events, because polling would slow down what is measured."""
    now = int(time.time())
    events = engine.events(now, now + 60, {"event": "rename", "label": labels(service)}, decode=True)
    renamed = set()
    for event in events:
        renamed.add(event["Actor"]["ID"])
        if len(renamed) == number:
            return
    raise AssertionError(f"{len(renamed)} of {number} were renamed")


def processes(service: Service, engine: docker.APIClient) -> set[tuple[str, str, int]]:
    """Return each container's id, the start time of its process, and its number of restarts."""
    seen = [engine.inspect_container(one["Id"]) for one in containers(service, engine)]
    return {(one["Id"], one["State"]["StartedAt"], one["RestartCount"]) for one in seen}
