"""Jobs that try to take a Docker engine's machine down with them: others run on, and nothing of them is left."""

from contextlib import closing
from typing import Any

import docker
import pytest

from jobs.states import Reason, State
from tests.helpers import built_images
from tests.helpers.engines import DockerBench
from tests.helpers.factories import make_job
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.engine, pytest.mark.stateless]

NAME = "n" * 250
HOSTILE = {
    "forks without an end": (":(){ :|:& }; while true; do :; done", {Reason.TIMEOUT, Reason.EXIT_CODE}),
    "prints without an end": ("yes 0123456789012345678901234567890123456789012345678901234567890123456789", {Reason.TIMEOUT}),
    "takes all memory": ("sleep 0.2; x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done", {Reason.OOM}),
    "fills the memory with files": ("sleep 0.2; exec dd if=/dev/zero of=/dev/shm/file bs=1M count=60", {Reason.OOM}),
    # Renamed again and again, because no path may be longer than 4 KiB.
    "digs directories": (
        f"mkdir {NAME}; for i in $(seq 60); do mkdir d; mv {NAME} d; mv d {NAME}; done; exit 1",
        {Reason.TIMEOUT, Reason.EXIT_CODE},
    ),
    "writes long names": (f"i=10000; while true; do : > {NAME}$i; i=$((i+1)); done", {Reason.TIMEOUT}),
}


def test_hostile_jobs_end_alone(docker_bench: DockerBench, docker_workers: Workers) -> None:
    # Given hostile jobs without callbacks, and one that works as long as they do
    limits: dict[str, Any] = {"memory_mib": 48, "cpu_millis": 300, "timeout_seconds": 3, "callback": None}
    jobs = {way: make_job(command=command, **limits) for way, (command, _) in HOSTILE.items()}
    honest = make_job(command="i=0; while [ $i -lt 30 ]; do echo $i; i=$((i+1)); sleep 0.1; done", cpu_millis=300)

    # When
    supervisor = docker_workers.another(log_limit=64 * 1024, shutdown_grace=0.3)
    for _ in [*jobs, honest]:
        docker_workers.run(supervisor)

    # I expect each to end for its own reason
    for way, job in jobs.items():
        ended = completed(job)
        assert ended.status == State.FAILED
        assert ended.reason in HOSTILE[way][1], way
    assert completed(honest).status == State.COMPLETED

    # And nothing to be left of them on the engine
    with closing(built_images.client(docker_bench.host)) as client:
        uuids = [str(job.uuid) for job in jobs.values()]
        wait_for(lambda: not [name for name in names(client) if any(uuid in name for uuid in uuids)], 30, "their removal")


def names(client: docker.DockerClient) -> list[str]:
    return [container.name for container in client.containers.list(all=True, ignore_removed=True)]
