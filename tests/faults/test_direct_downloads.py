"""A worker or its engine ends while a large download is written to its container."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.system import SystemOn
from tests.faults.test_engine import engine_of_our_own
from tests.helpers.docker_daemons import OwnDaemon
from tests.helpers.fileserver import FileServer, cut
from tests.helpers.service_processes import Service

pytestmark = [pytest.mark.engine, pytest.mark.production, pytest.mark.long, pytest.mark.timeout(180)]

MIB = 1024**2
CONTENT = os.urandom(MIB) * 48
SENT = 32 * MIB  # before the server falls silent: more than the first 4 MiB and all buffers of sockets
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def engine() -> Iterator[OwnDaemon]:
    with engine_of_our_own() as daemon:
        yield daemon


def interrupted_download(service: Service, end: Callable[[], object]) -> None:
    """Call `end` in the middle of a download, and check that the job gets the whole file all the same."""
    with FileServer() as server:
        # Given a job whose download has come to a stop in the middle
        server.serve("/in", CONTENT, ETag='"1"')
        url = server.fault("/in", cut(SENT, hang=True))
        inputs = [{"type": "download", "path": "in", "url": url, "sha256": SHA256}]
        job = service.post_job(command="sha256sum in", inputs=inputs, cpu=0.5, memory=64)
        assert server.hanging.acquire(timeout=60)
        assert sum(spooled(service)) < SENT // 2, "it is not written while it arrives"

        # When something ends
        end()

        # I expect the job to start once, with the whole file
        ended = service.wait_complete(job, 100)
        assert (ended["status"], [one["status"] for one in ended["inputs"]]) == ("completed", ["success"])
        assert service.get_log(job) == [f"{SHA256}  in"]


def spooled(service: Service) -> list[int]:
    """Return the sizes of the worker's downloads on its disk."""
    sizes = []
    for descriptor in Path(f"/proc/{service.processes['worker'].pid}/fd").iterdir():
        with suppress(OSError):
            if os.readlink(descriptor).startswith(str(service.directory / "spool")):
                sizes.append(descriptor.stat().st_size)
    return sizes


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_the_worker_ends(service: Service, end: str) -> None:
    for kind in ("web", "relay", "worker"):
        service.start(kind)

    def replace_worker() -> None:
        getattr(service, end)("worker")
        service.restart("worker")

    interrupted_download(service, replace_worker)


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_the_engine_ends(system_on: SystemOn, engine: OwnDaemon, end: str) -> None:
    with system_on(engine.host) as system:
        system.start()

        def restart_engine() -> None:
            getattr(engine, end)()
            engine.start_again()

        interrupted_download(system.service, restart_engine)
