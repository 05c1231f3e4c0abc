"""Our init in Docker's containers: its installation, its repair, and unusual images (docs/adr/0014)."""

import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import docker
import image as stand_in
import pytest

from jobs.engine import container_init
from jobs.engine.docker import DockerEngine, init
from jobs.engine.docker.container_json import creation_body
from jobs.engine.docker.transport import EngineClient
from jobs.errors import EngineRefused, EngineUnavailable
from jobs.interrupt import Interrupt
from orchestrator_site.base.intervals import EngineIntervals
from tests.helpers import built_images
from tests.helpers.engines import DockerBench, shell
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.stateless]

SOURCE = Path(container_init.__file__).parent
COMPILERS = {"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"}


@pytest.fixture
def client(docker_host: str) -> Iterator[docker.DockerClient]:
    with closing(built_images.client(docker_host)) as client:
        yield client


def holders(client: docker.DockerClient) -> list[str]:
    return sorted(found.name for found in client.containers.list(all=True, filters={"label": init.LABEL}))


def remove_init(client: docker.DockerClient) -> None:
    """Do what `docker system prune --all --volumes` does while no job's container exists."""
    for found in client.containers.list(all=True, filters={"label": init.LABEL}):
        reference = found.attrs["Config"]["Image"]
        found.remove(v=True)
        with suppress(docker.errors.ImageNotFound):
            client.images.remove(reference)


def layer_of(files: dict[str, tuple[bytes, int]]) -> bytes:
    """Return a tar archive of files, given the content and mode of each."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name, (content, mode) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
    return layer.getvalue()


@pytest.fixture(scope="module")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a static program that acts as the tool it is named after."""
    return stand_in.static_busybox(tmp_path_factory.mktemp("busybox")).read_bytes()


# -- installation ---------------------------------------------------------------------------------


@pytest.mark.alone
def test_the_init_is_installed_again_after_a_prune(docker_bench: DockerBench, client: docker.DockerClient) -> None:
    docker_bench.run(("true",))
    (holder,) = holders(client)
    for _ in range(2):
        docker_bench.clean()
        remove_init(client)

        assert docker_bench.output(("cat", "/proc/1/cmdline")).startswith(f"{container_init.COMMAND}\0cat\0")
        assert holders(client) == [holder]


@pytest.mark.alone
def test_a_prune_does_not_affect_existing_containers(docker_bench: DockerBench, client: docker.DockerClient) -> None:
    created = docker_bench.created(("echo", "started"))
    running = docker_bench.started(shell("trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done"))
    wait_for(lambda: docker_bench.log(running), what="its line")

    (holder,) = client.containers.list(all=True, filters={"label": init.LABEL})
    volume = client.volumes.get(holder.attrs["Mounts"][0]["Name"])
    remove_init(client)
    with pytest.raises(docker.errors.APIError, match="in use"):
        volume.remove()

    docker_bench.engine.start(created)
    docker_bench.engine.wait(created, Interrupt(), timeout=60)
    docker_bench.engine.stop(running, 30)
    assert docker_bench.log(created)[0].data == b"started\n"
    assert docker_bench.engine.inspect(running).exit_code == 5
    assert docker_bench.run(("true",)).exit_code == 0


@pytest.mark.alone
def test_the_init_is_installed_after_a_crash_halfway(docker_bench: DockerBench, client: docker.DockerClient) -> None:
    docker_bench.run(("true",))
    (holder,) = holders(client)
    client.containers.get(holder).remove(v=True)  # its image stays

    assert docker_bench.run(("true",)).exit_code == 0
    assert holders(client) == [holder]


@pytest.mark.alone
def test_simultaneous_workers_install_one_init(docker_bench: DockerBench, client: docker.DockerClient) -> None:
    remove_init(client)
    specs = [docker_bench.spec(("echo", str(number))) for number in range(8)]

    def run(number: int) -> None:
        engine = DockerEngine(docker_bench.host)  # in a worker of its own

        def create() -> bool:
            try:
                engine.create(specs[number])
            except EngineUnavailable:  # another worker is installing it: every job tries again
                return False
            return True

        wait_for(create, 60, "the container to be created")
        engine.start(specs[number].name)
        engine.wait(specs[number].name, Interrupt(), timeout=60)

    with ThreadPoolExecutor(len(specs)) as pool:
        list(pool.map(run, range(len(specs))))

    printed = [docker_bench.log(spec.name)[0].data for spec in specs]
    assert printed == [f"{number}\n".encode() for number in range(len(specs))]
    assert len(holders(client)) == 1
    assert len(client.images.list(filters={"reference": "orchestrator-init"})) == 1


@pytest.mark.alone
def test_an_init_emptied_by_a_power_cut_is_installed_again(docker_bench: DockerBench, client: docker.DockerClient) -> None:
    docker_bench.run(("true",))
    (holder,) = holders(client)
    client.containers.run(
        docker_bench.image, ["sh", "-c", f": > {container_init.COMMAND}"], volumes_from=[holder], remove=True, network_mode="none"
    )

    docker_bench.engine = DockerEngine(docker_bench.host)  # of a worker that starts after the power cut

    assert docker_bench.output(("echo", "hello")) == "hello\n"


@pytest.mark.alone
def test_old_holders_of_other_releases_are_removed(docker_bench: DockerBench, client: docker.DockerClient) -> None:
    def install_again() -> list[str]:
        docker_bench.clean()
        client.containers.get(ours).remove(v=True)
        docker_bench.run(("true",))
        return holders(client)

    # Given a holder of another release, which may have workers on this engine
    docker_bench.run(("true",))
    (ours,) = holders(client)
    version = "0123456789ab"
    client.images.get(docker_bench.image).tag("orchestrator-init", version)
    other = f"orchestrator-init-{version}"
    client.containers.create(f"orchestrator-init:{version}", name=other, labels={init.LABEL: version})

    # And an ended job whose image claims to be one
    imposter = docker_bench.spec(labels={init.LABEL: version})
    client.containers.create(docker_bench.image, name=imposter.name, labels=imposter.labels)

    # I expect the holder to be kept while it is new, and to be removed when it is old
    assert install_again() == sorted([ours, other, imposter.name])
    docker_bench.engine = DockerEngine(docker_bench.host, EngineIntervals(superseded_init=0.0))
    assert install_again() == sorted([ours, imposter.name])
    client.containers.get(imposter.name).remove()
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get(f"orchestrator-init:{version}")


def test_a_container_of_a_release_with_dockers_init_still_works(docker_bench: DockerBench) -> None:
    spec = docker_bench.spec(shell("trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"))
    EngineClient(docker_bench.host, EngineIntervals()).call(
        "POST", "/containers/create", params={"name": spec.name}, body=creation_body(spec)
    )

    docker_bench.engine.start(spec.name)
    wait_for(lambda: docker_bench.log(spec.name), what="its line")
    docker_bench.engine.stop(spec.name, 30)

    assert docker_bench.engine.inspect(spec.name).exit_code == 5


# -- unusual images ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entrypoint", "command", "printed"),
    [
        (["echo", "a"], None, "a\n"),
        (["echo", "a"], ["b", "c d"], "a b c d\n"),
        (None, ["echo", "b"], "b\n"),
        ([], ["echo", "b"], "b\n"),
        ([""], ["echo", "b"], "b\n"),
    ],
)
def test_the_images_command_is_its_entrypoint_and_cmd(
    docker_bench: DockerBench, entrypoint: list[str] | None, command: list[str] | None, printed: str
) -> None:
    image = docker_bench.image_of(built_images.busybox_file_system(), Entrypoint=entrypoint, Cmd=command, Env=["PATH=/bin"])

    assert docker_bench.output(None, image=image) == printed


def test_an_image_without_configuration_has_no_command(docker_bench: DockerBench) -> None:
    with pytest.raises(EngineRefused, match="the image has no command"):
        docker_bench.created(None, image=docker_bench.image_of(layer_of({"file": (b"", 0o644)})))


def test_an_image_with_one_program_and_a_numeric_user_works(docker_bench: DockerBench, busybox: bytes) -> None:
    layer = layer_of({"echo": (busybox, 0o755)})
    image = docker_bench.image_of(layer, User="1234:99", WorkingDir="/", Entrypoint=["/echo", "alone"])

    assert docker_bench.output(None, image=image, workspace="/some/where") == "alone\n"
    assert docker_bench.output(("/echo", "ours"), image=image, workspace="/") == "ours\n"


def test_an_image_cannot_replace_the_init(docker_bench: DockerBench, busybox: bytes) -> None:
    files = {"echo": (busybox, 0o755), container_init.COMMAND.lstrip("/"): (b"#!/bin/false\n", 0o755)}
    image = docker_bench.image_of(layer_of(files))

    assert docker_bench.output(("/echo", "ours"), image=image) == "ours\n"


def test_a_job_cannot_change_the_init_of_other_jobs(docker_bench: DockerBench) -> None:
    name = docker_bench.ended(
        shell(f"echo > {container_init.COMMAND}; rm -f {container_init.COMMAND}; mount -o remount,rw {container_init.DIRECTORY}")
    )

    assert docker_bench.engine.inspect(name).exit_code != 0
    assert docker_bench.run(("true",)).exit_code == 0


# -- PID 1 ---------------------------------------------------------------------------------------


def test_orphans_are_reaped(docker_bench: DockerBench) -> None:
    orphan = "sh -c 'sleep 0.01 & :'"
    script = f"{orphan}; {orphan}; sleep 0.3; cat /proc/[0-9]*/stat | grep -c ' Z ' || true"

    assert docker_bench.output(shell(script)) == "0\n"


def test_other_signals_reach_only_the_program(docker_bench: DockerBench, client: docker.DockerClient) -> None:
    child = "trap 'echo child' USR1; while :; do sleep 0.05; done"
    parent = "trap 'echo parent; exit 4' USR1; echo ready; while :; do sleep 0.05; done"
    name = docker_bench.started(shell(f'sh -c "{child}" & {parent}'))
    wait_for(lambda: docker_bench.log(name), what="its line")

    client.containers.get(name).kill("SIGUSR1")
    docker_bench.engine.wait(name, Interrupt(), timeout=60)

    assert [frame.data for frame in docker_bench.log(name)] == [b"ready\n", b"parent\n"]
    assert docker_bench.engine.inspect(name).exit_code == 4


def test_a_missing_interpreter_differs_from_a_missing_program(docker_bench: DockerBench) -> None:
    name = docker_bench.ended(("/script",), image=docker_bench.image_of(layer_of({"script": (b"#!/no/such\n", 0o755)})))

    assert docker_bench.engine.inspect(name).exit_code == 126
    assert docker_bench.log(name)[0].data == b"exec /script: its interpreter is not found\n"


@pytest.mark.parametrize(("path", "exit_code"), [("/none", 127), ("/none:/data", 126), ("/none:/data:/echo:/bin", 0)])
def test_a_program_is_searched_for_in_the_path(docker_bench: DockerBench, busybox: bytes, path: str, exit_code: int) -> None:
    image = docker_bench.image_of(layer_of({"data/echo": (busybox, 0o644), "echo": (b"", 0o755), "bin/echo": (busybox, 0o755)}))

    assert docker_bench.run(("echo",), image=image, environment={"PATH": path}).exit_code == exit_code


# -- binaries --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", COMPILERS)
def test_the_binary_is_built_from_the_source(tmp_path: Path, architecture: str) -> None:
    compiler = COMPILERS[architecture]
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout if shutil.which(compiler) else b""
    if b"Debian 12." not in version:
        pytest.skip(f"needs {compiler} of Debian 12")

    subprocess.run([SOURCE / "build", tmp_path, architecture], check=True, timeout=60)

    made = f"init-{architecture}"
    assert (tmp_path / made).read_bytes() == (SOURCE / made).read_bytes()
