"""Fixtures of the fault tests: an installation of production processes on servers that a test may harm."""

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import databases
import pytest

from tests.faults.cluster import ClusterSystem, ClusterSystemOn, PodStarts
from tests.faults.system import System, SystemOn
from tests.faults.witnesses import Readiness, Starts
from tests.helpers.clusters import Namespace
from tests.helpers.fileserver import FileServer
from tests.helpers.receiver import Receiver
from tests.helpers.service_processes import installation_on

SEED = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(10**6))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this directory: it belongs to the long form unless marked `short`, and disturbs what uses its engine.

    Those on a cluster only have jobs there, as others have, unless they are marked `alone` themselves.
    """
    for item in items:
        if Path(__file__).parent in item.path.parents:
            if item.get_closest_marker("engine"):
                item.add_marker("alone")
            if item.get_closest_marker("short") is None:
                item.add_marker("faults")


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


@pytest.fixture
def system_on(tmp_path: Path, postgresql: databases.Server, redis_server: databases.Server) -> SystemOn:
    """Make an installation on the given engines, with the given variables of the service."""

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
def cluster_system_on(
    tmp_path: Path, postgresql: databases.Server, redis_server: databases.Server, cluster_namespace: Namespace
) -> ClusterSystemOn:
    """Make an installation on the cluster and the given engines, with the given variables of the service."""

    @contextmanager
    def make(*engines: str, **variables: str) -> Iterator[ClusterSystem]:
        with ExitStack() as stack:
            receiver, files = stack.enter_context(Receiver()), stack.enter_context(FileServer())
            settings = {
                "ENGINE": "kubernetes",
                "KUBECONFIG": str(cluster_namespace.kubeconfig),
                "KUBE_HELPER_IMAGE": "alpine:latest",
                **variables,
            }
            service = stack.enter_context(installation_on(tmp_path, postgresql.url, redis_server.url, engines, **settings))
            starts = [stack.enter_context(watcher) for watcher in (PodStarts(cluster_namespace), *map(Starts, engines))]
            system = ClusterSystem(cluster_namespace, service, receiver, files, engines, starts, SEED)
            stack.callback(system.remove_all)
            stack.callback(system.load.close)
            system.readiness = stack.enter_context(Readiness(service.url))
            yield system

    return make


@pytest.fixture
def cluster_system(cluster_system_on: ClusterSystemOn) -> Iterator[ClusterSystem]:
    """An installation on the cluster of this run."""
    with cluster_system_on() as system:
        yield system


@pytest.fixture
def system(system_on: SystemOn) -> Iterator[System]:
    """An installation on the run's engine."""
    with system_on(os.environ["DOCKER_HOST"]) as system:
        yield system
