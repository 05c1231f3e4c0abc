"""A tree with more levels than dockerd may have open files."""

import resource
import shutil
from collections.abc import Iterator
from contextlib import closing

import docker
import pytest

from tests.helpers import built_images
from tests.helpers.docker_daemons import own_daemon
from tests.helpers.engines import DockerBench, shell
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.any_engine, pytest.mark.stateless]

DIGS = "mkdir -p $(printf 'd/%.0s' $(seq 1500))"


@pytest.fixture
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerBench]:
    """A bench around a dockerd that may have 400 files open."""
    if not shutil.which("dockerd"):
        pytest.skip("needs dockerd")
    with own_daemon(tmp_path_factory.mktemp("e"), firewall=False) as daemon:
        bench = DockerBench(daemon.host, "")
        bench.run(("true",))  # makes the init
        limits = resource.prlimit(daemon._dockerd.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon._dockerd.pid, resource.RLIMIT_NOFILE, (400, limits[1]))
        yield bench
        resource.prlimit(daemon._dockerd.pid, resource.RLIMIT_NOFILE, limits)
        bench.clean()


def test_a_container_with_deep_trees_is_removed(bench: DockerBench) -> None:
    # Given a job that has made one in its workspace and one in a volume of its image
    image = bench.image_of(built_images.busybox_file_system(), Volumes={"/volume": {}}, Env=["PATH=/bin"])
    with closing(docker.DockerClient(base_url=bench.host)) as client:
        before = {volume.name for volume in client.volumes.list()}
        name = bench.ended(shell(f"cd /workspace && {DIGS} && cd /volume && {DIGS}"), image=image)
        assert bench.engine.inspect(name).exit_code == 0

        # When
        bench.engine.remove(name, force=True)

        # I expect nothing to be left
        wait_for(lambda: all(seen.name != name for seen in bench.engine.list(bench.labels)), 10)
        assert {volume.name for volume in client.volumes.list()} == before
