"""Engines to test against, fake and real, and test benches around them."""

import io
import os
import tarfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import docker
import pytest

from jobs.engine.docker import DockerEngine
from jobs.engine.protocol import Engine, Frame, Observation, RunSpec
from jobs.interrupt import Interrupt
from tests.fake_engine import FakeEngine, FakeImage, SchedulingEngine
from tests.helpers import built_images, registries
from tests.helpers.log_frames import flat

TEST_LABEL = "orchestrator-test"


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


def tar_of(name: str, content: bytes, **attributes: Any) -> bytes:
    """Return a tar archive with one file."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        for attribute, value in attributes.items():
            setattr(member, attribute, value)
        tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def untar(chunks: Iterable[bytes]) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """Return the members and their contents, by name."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        return {
            member.name: (member, file.read() if member.isreg() and (file := tar.extractfile(member)) else b"")
            for member in tar.getmembers()
        }


class Pulls(Protocol):
    """Pulls that are held until `release`; `count` is how many have reached the registry."""

    reference: str

    def count(self) -> int: ...

    def release(self) -> None: ...


class Bench:
    """A test bench around one engine: makes containers for one test, and removes them in whatever state they are."""

    engine: Engine
    image = "alpine:latest"

    def __init__(self) -> None:
        self.labels = {TEST_LABEL: uuid.uuid4().hex}

    def spec(self, command: tuple[str, ...] | None = ("true",), **values: Any) -> RunSpec:
        defaults: dict[str, Any] = {
            "name": f"test-{uuid.uuid4().hex}",
            "image": self.image,
            "environment": {},
            "workspace": "/workspace",
            "cpu_millis": 1000,
            "memory_mib": 128,
            "network": None,
            "labels": self.labels,
            "stop_grace_seconds": 10,
            "log_limit_bytes": 256 * 1024**2,
        }
        return RunSpec(command=command, **(defaults | values))

    def created(self, command: tuple[str, ...] | None = ("true",), **values: Any) -> str:
        """Create a container and return its name. `values` replace those of `spec`."""
        spec = self.spec(command, **values)
        self.engine.create(spec)
        return spec.name

    def started(self, command: tuple[str, ...] | None = ("true",), **values: Any) -> str:
        """Create and start a container, and return its name when its process runs."""
        name = self.created(command, **values)
        self.start(name)
        return name

    def start(self, name: str) -> None:
        """Start a created container, and return when its process runs."""
        self.engine.start(name)
        self.engine.wait_until_started(name, lambda _: None, Interrupt())

    def ended(self, command: tuple[str, ...] | None = ("true",), **values: Any) -> str:
        """Run a container to its end, and return its name."""
        name = self.started(command, **values)
        self.engine.wait(name, Interrupt(), timeout=60)
        return name

    def run(self, command: tuple[str, ...] | None, **values: Any) -> Observation:
        return self.engine.inspect(self.ended(command, **values))

    def log(self, name: str, *, skip: int = 0, follow: bool = False, tail: int | None = None) -> list[Frame]:
        with self.engine.logs(name, skip=skip, follow=follow, interrupt=Interrupt(), tail=tail) as frames:
            return flat(frames)

    def output(self, command: tuple[str, ...] | None, **values: Any) -> str:
        """Run a command and return what it printed to stdout."""
        return self.printed(self.ended(command, **values))

    def printed(self, name: str) -> str:
        """Return what a container has printed to stdout."""
        frames = self.log(name)
        return b"".join(frame.data for frame in frames if frame.stream == "stdout").decode()

    def statistics(self, name: str) -> str:
        """Describe what the engine itself says that a running container has used, for the message of a test that fails."""
        return ""

    def clean(self) -> None:
        for seen in self.engine.list(self.labels):
            self.engine.remove(seen.name, force=True)
        for network_id in self.engine.list_networks(self.labels):
            self.engine.remove_network(network_id)

    def image_with(self, *, user: str = "", command: tuple[str, ...] | None = ("/bin/sh",)) -> str:
        """Make an image with this configuration on the engine, and return its reference."""
        raise NotImplementedError

    def image_for(self, architecture: str) -> str:
        """Make an image for that architecture on the engine, and return its reference."""
        raise NotImplementedError

    def publish(self) -> str:
        """Make an image that is in a registry but not on the engine, and return its reference."""
        raise NotImplementedError

    def republish(self, reference: str) -> None:
        """Replace a published image by another one."""
        raise NotImplementedError

    def delete_image(self, reference: str) -> None:
        """Delete an image from the engine."""
        raise NotImplementedError

    def held_pulls(self) -> Any:
        """Return a context manager that holds pulls and yields `Pulls`."""
        raise NotImplementedError


class FakeBench(Bench):
    def __init__(self, engine: FakeEngine) -> None:
        super().__init__()
        self.engine: FakeEngine = engine

    def image_with(self, *, user: str = "", command: tuple[str, ...] | None = ("/bin/sh",)) -> str:
        reference = f"test/{uuid.uuid4().hex}:latest"
        self.engine.images[reference] = replace(FakeImage(), user=user, command=command)
        return reference

    def image_for(self, architecture: str) -> str:
        reference = f"test/{uuid.uuid4().hex}:latest"
        self.engine.images[reference] = FakeImage(architecture=architecture)
        return reference

    def publish(self) -> str:
        reference = f"test/{uuid.uuid4().hex}:1"
        self.republish(reference)
        return reference

    def republish(self, reference: str) -> None:
        self.engine.registry[reference] = FakeImage(command=("echo", uuid.uuid4().hex))

    def delete_image(self, reference: str) -> None:
        del self.engine.images[reference]

    @contextmanager
    def held_pulls(self) -> Iterator[Pulls]:
        self.engine.pulls_allowed.clear()
        yield _FakePulls(self.engine)
        self.engine.pulls_allowed.set()


class _FakePulls:
    reference = "test/unknown:1"

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine

    def count(self) -> int:
        return self._engine.pulls_begun

    def release(self) -> None:
        self._engine.pulls_allowed.set()


class DockerBench(Bench):
    def __init__(self, host: str, registry_address: str) -> None:
        super().__init__()
        self.engine: DockerEngine = DockerEngine(host)
        self.host = host
        self._registry = registry_address
        self._made: list[str] = []  # ids, because moving a tag leaves the old image behind

    def statistics(self, name: str) -> str:
        # They are empty if a hierarchy of control groups is not mounted where the engine runs, among other reasons.
        with closing(docker.APIClient(base_url=self.host, version="auto")) as client:
            said = client.stats(name, stream=False, one_shot=True)
        return f"the engine's statistics: {said}; control groups: {Path('/proc/self/cgroup').read_text()!r}"

    def clean(self) -> None:
        super().clean()
        for image_id in self._made:
            built_images.remove(self.host, image_id)

    def image_with(self, *, user: str = "", command: tuple[str, ...] | None = ("/bin/sh",)) -> str:
        reference = f"{TEST_LABEL}/{uuid.uuid4().hex}:latest"
        changes = [f"USER {user}"] if user else []
        built_images.import_busybox(self.host, reference, changes, command=command)
        self._made.append(built_images.id_of(self.host, reference))
        return reference

    def image_for(self, architecture: str) -> str:
        return self.image_of(built_images.busybox_file_system(), architecture)

    def image_of(self, layer: bytes, architecture: str = "", **configuration: object) -> str:
        """Make an image from a tar archive and a configuration in the image format, and return its reference."""
        reference = f"{TEST_LABEL}/{uuid.uuid4().hex}:latest"
        built_images.load(self.host, reference, layer, architecture, **configuration)
        self._made.append(built_images.id_of(self.host, reference))
        return reference

    def publish(self) -> str:
        reference = f"{self._registry}/{uuid.uuid4().hex}:1"
        self.republish(reference)
        built_images.remove(self.host, reference)
        return reference

    def republish(self, reference: str) -> None:
        here = built_images.import_busybox(
            self.host, f"{TEST_LABEL}/{uuid.uuid4().hex}:latest", [f"LABEL one={uuid.uuid4().hex}"]
        )
        self._made.append(built_images.id_of(self.host, here))
        built_images.push(self.host, here, reference)
        built_images.remove(self.host, here)

    def delete_image(self, reference: str) -> None:
        built_images.remove(self.host, reference)

    @contextmanager
    def held_pulls(self) -> Iterator[Pulls]:
        with closing(registries.HeldRegistry()) as held:
            yield _DockerPulls(held)


class _DockerPulls:
    def __init__(self, held: registries.HeldRegistry) -> None:
        self._held = held
        self.reference = f"{held.address}/unknown:1"

    def count(self) -> int:
        return len([path for path in self._held.requests if path == "/v2/"])

    def release(self) -> None:
        self._held.release()


@pytest.fixture(scope="session")
def docker_host() -> str:
    """The Docker engine under test, with `alpine:latest`; `bin/test` sets `DOCKER_HOST`."""
    host = os.environ.get("DOCKER_HOST")
    if not host:
        pytest.skip("DOCKER_HOST is not set")
    built_images.ensure_alpine(host)
    return host


@pytest.fixture(scope="session")
def registry_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real registry without access control."""
    with registries.serve(tmp_path_factory.mktemp("registry") / "open") as address:
        yield address


@pytest.fixture
def docker_bench(docker_host: str, registry_address: str) -> Iterator[DockerBench]:
    bench = DockerBench(docker_host, registry_address)
    yield bench
    bench.clean()


@pytest.fixture
def fake_bench() -> Iterator[FakeBench]:
    bench = FakeBench(FakeEngine())
    yield bench
    bench.engine.close()


@pytest.fixture
def scheduling_bench() -> Iterator[FakeBench]:
    bench = FakeBench(SchedulingEngine())
    yield bench
    bench.engine.close()


@pytest.fixture(
    params=[
        "fake",
        "scheduling",
        pytest.param("docker", marks=pytest.mark.engine),
        pytest.param("kubernetes", marks=pytest.mark.kubernetes),
    ]
)
def bench(request: pytest.FixtureRequest) -> Bench:
    """Each engine in turn: tests with this fixture are the contract of `jobs.engine.protocol`."""
    found: Bench = request.getfixturevalue(f"{request.param}_bench")
    return found


@pytest.fixture
def file_of_zeros(tmp_path: Path) -> Path:
    """A sparse file of 64 MiB."""
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        file.truncate(64 * 1024**2)
    return path
