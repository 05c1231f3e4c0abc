"""Jobs that write too much to the disk of a Docker engine are ended, whatever way they do it, and others run on."""

from contextlib import closing

import pytest

from jobs.states import Reason, State
from tests.helpers import built_images
from tests.helpers.engines import DockerBench
from tests.helpers.factories import make_job
from tests.helpers.job_checks import event_types
from tests.helpers.workers import Workers, completed

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.engine, pytest.mark.stateless]

MIB = 1024**2
FILL = "dd if=/dev/zero bs=1M count=150"
WAYS = {
    "the layer": f"{FILL} of=/file",
    "the workspace": f"{FILL} of=file",
    "a file without a name": f"exec 3>file; rm file; {FILL} >&3",
    "a volume of the image": f"{FILL} of=/volume/file",
    "a file of the engine": f"{FILL} of=/etc/hosts",
    "many files": "i=0; while [ $i -lt 9000 ]; do : > $i; i=$((i+1)); done",
}


def test_whatever_way_a_job_fills_the_disk_it_is_ended(docker_bench: DockerBench, docker_workers: Workers) -> None:
    # Given jobs that write too much and stay, each in another way, and one that writes a little
    image = docker_bench.image_of(built_images.busybox_file_system(), Volumes={"/volume": {}}, Env=["PATH=/bin"])
    jobs = {way: make_job(command=f"{script}; exec sleep 100", image=image, cpu_millis=500) for way, script in WAYS.items()}
    waits = f"{FILL.replace('150', '10')} of=file; while [ ! -e go ]; do sleep 0.1; done"
    modest = make_job(command=waits, image=image, cpu_millis=500)

    # When
    docker_workers.set_intervals(disk={"look": 0.1})
    supervisor = docker_workers.another(disk_limit=64 * MIB)
    for _ in [*jobs, modest]:
        docker_workers.run(supervisor)

    # I expect them to be ended at once, without the time to write more
    for way, job in jobs.items():
        ended = completed(job)
        assert (way, ended.status, ended.reason) == (way, State.FAILED, Reason.DISK)
        assert ended.exit_code in (137, 143)
        assert "the limit is " in ended.error
        assert event_types(ended)[-2:] == ["exit", "complete"]

    # And the other one to run on
    (container,) = [name for name in engine_containers(docker_bench) if str(modest.uuid) in name]
    with closing(built_images.client(docker_bench.host)) as client:
        client.containers.get(container).exec_run(["touch", "/workspace/go"])
    assert completed(modest).status == State.COMPLETED


def engine_containers(bench: DockerBench) -> list[str]:
    with closing(built_images.client(bench.host)) as client:
        return [container.name for container in client.containers.list()]
