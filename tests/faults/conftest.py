"""What every fault test has: an installation of production processes on servers that may be harmed, and a load on it."""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import databases
import docker
import pytest

from jobs.engine.docker import init
from jobs.running.container_labels import INSTANCE_LABEL
from tests.faults.load import Load
from tests.faults.witnesses import Readiness, Starts
from tests.helpers.fileserver import FileServer
from tests.helpers.receiver import Receiver
from tests.helpers.service_processes import Service, installation_on
from tests.helpers.waiting import wait_for

SEED = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(10**6))
_SWEPT_WITHIN = 90.0  # seconds: a container is a leftover 30 s after it was made, and sweeps come every 30 s


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this directory are the long form, but those that it has in longer."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("short") is None:
            item.add_marker("faults")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if System.made:
        terminalreporter.write_line(f"faults: seed {SEED} (FAULTS_SEED={SEED} repeats it)")


class System:
    """An installation, the engines below it, the servers around it, and those who watch."""

    made = False  # any, in this run

    def __init__(
        self, service: Service, receiver: Receiver, files: FileServer, engines: tuple[str, ...], starts: list[Starts], seed: int
    ) -> None:
        System.made = True
        self.service = service
        self.engines = engines
        self.load = Load(service, receiver, files, seed)
        self.random = self.load.random
        self.readiness: Readiness  # set where it is entered
        self._starts = starts
        self._volumes = {host: volumes(host) for host in engines}

    def start(self, *workers: str) -> None:
        """All processes of the Procfile; as many workers as there are names, one named `worker` where there are none."""
        for kind in ("web", "deliver", "relay", "metrics"):
            self.service.start(kind)
        for name in workers or ("worker",):
            self.service.start("worker", name)
        self.wait_until_ready()

    def wait_until_ready(self, timeout: float = 30) -> None:
        wait_for(lambda: self.service.request("GET", "/readyz").ok, timeout, "/readyz to be healthy")

    def check(self, timeout: float = 180) -> None:
        """Wait for the end of all jobs. Raise where one became something else than it had to, or anything is left over."""
        self.load.wait_until_done(timeout)
        self.load.check(self._starts_by_id())
        self.check_that_nothing_is_left()

    def _starts_by_id(self) -> dict[str, int]:
        counted = sum((starts.by_job() for starts in self._starts), Counter[str]())
        return {job_id: counted[str(uuid)] for job_id, uuid in self.service.query("SELECT id, uuid FROM jobs_job")}

    def check_that_nothing_is_left(self) -> None:
        query = self.service.query
        assert query("SELECT name FROM jobs_node WHERE cpu_millis_reserved <> 0 OR memory_mib_reserved <> 0") == []
        assert query("SELECT id FROM jobs_job WHERE reserved OR owner_id IS NOT NULL") == []
        leased = "SELECT id FROM callbacks_subscription WHERE lease_token IS NOT NULL OR sending IS NOT NULL"
        wait_for(lambda: query(leased) == [], 10, "leases to be given back", step=0.1)
        assert self._spooled() == []
        workers = [name for name in self.service.processes if name.startswith("worker")]
        wait_for(
            lambda: len(list((self.service.directory / "locks").iterdir())) == len(workers),
            30,
            "locks of the dead to go",
            step=0.1,
        )
        assert query("SELECT count(*) FROM jobs_worker") == [(len(workers),)]
        self.service.restart("relay")  # it asks for a sweep as it starts
        for host in self.engines:
            wait_for(lambda host=host: self._containers(host) == [], _SWEPT_WITHIN, "containers of ended jobs to go", step=0.5)
            assert self._networks(host) <= 1
            assert volumes(host) <= self._volumes[host]

    def _spooled(self) -> list[str]:
        """Downloads that a process still keeps: they have no name."""
        spool = str(self.service.directory / "spool")
        found = []
        for process in self.service.processes.values():
            for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
                with suppress(OSError):
                    found.append(os.readlink(descriptor))
        return [path for path in found if path.startswith(spool)]

    def _containers(self, host: str) -> list[str]:
        with closing(docker.DockerClient(base_url=host, timeout=60)) as client:
            found = client.containers.list(all=True, filters={"label": f"{INSTANCE_LABEL}={self.instance}"}, ignore_removed=True)
            return [container.name for container in found]

    def _networks(self, host: str) -> int:
        with closing(docker.DockerClient(base_url=host, timeout=60)) as client:
            return len(client.networks.list(filters={"label": f"{INSTANCE_LABEL}={self.instance}"}))

    @property
    def instance(self) -> str:
        return str(self.service.query("SELECT name FROM jobs_instance")[0][0])

    def uuid_of(self, job_id: str) -> str:
        return str(self.service.query("SELECT uuid FROM jobs_job WHERE id = %s", job_id)[0][0])


def volumes(host: str) -> set[str]:
    """Those of an engine, but for the one that the engine keeps with the init of all jobs."""
    with closing(docker.DockerClient(base_url=host, timeout=60)) as client:
        holders = client.containers.list(all=True, filters={"label": init.LABEL})
        kept = {mount["Name"] for holder in holders for mount in holder.attrs["Mounts"]}
        return {str(volume.name) for volume in client.volumes.list()} - kept


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[databases.Server]:
    """A PostgreSQL that the tests may harm."""
    with databases.postgresql(tmp_path_factory.mktemp("postgresql")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[databases.Server]:
    """A Redis that the tests may harm."""
    with databases.redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


SystemOn = Callable[..., AbstractContextManager[System]]


@pytest.fixture
def system_on(tmp_path: Path, postgresql: databases.Server, redis_server: databases.Server) -> SystemOn:
    """Makes an installation on these engines, with these variables of the service's."""

    @contextmanager
    def make(*engines: str, directory: Path = tmp_path, **variables: str) -> Iterator[System]:
        with ExitStack() as stack:
            receiver, files = stack.enter_context(Receiver()), stack.enter_context(FileServer())
            settings = {"DOCKER_HOST": engines[0], **variables}
            service = stack.enter_context(installation_on(directory, postgresql.url, redis_server.url, engines, **settings))
            starts = [stack.enter_context(Starts(host)) for host in engines]
            system = System(service, receiver, files, engines, starts, SEED)
            stack.callback(system.load.close)
            system.readiness = stack.enter_context(Readiness(service.url))
            yield system

    return make


@pytest.fixture
def system(system_on: SystemOn) -> Iterator[System]:
    """An installation on the run's engine."""
    with system_on(os.environ["DOCKER_HOST"]) as system:
        yield system
