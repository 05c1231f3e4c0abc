"""An installation under a mixed load, on engines and databases that a test may harm."""

import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path

import docker

from jobs.engine.docker import init
from jobs.running.container_labels import INSTANCE_LABEL, NETWORK_LABEL, UUID_LABEL
from orchestrator_site.base.intervals import DeliveryIntervals
from tests.faults.load import Load
from tests.faults.outcomes import check_outcomes
from tests.faults.witnesses import Readiness, Starts
from tests.helpers.fileserver import FileServer
from tests.helpers.receiver import Receiver
from tests.helpers.service_processes import Service
from tests.helpers.waiting import wait_for

_SWEEP_SECONDS = 90.0  # a container may be removed 30 s after it was made, and a sweep comes every 30 s


def pass_time(seconds: float) -> None:
    """Wait while the load goes on."""
    until = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() >= until, seconds + 10)


class System:
    """An installation, its engines, the servers around it, and the observers of both."""

    def __init__(
        self, service: Service, receiver: Receiver, files: FileServer, engines: tuple[str, ...], starts: list[Starts], seed: int
    ) -> None:
        print(f"The seed of this run: FAULTS_SEED={seed}")  # pytest shows it with a failure
        self.service = service
        self.engines = engines
        self.load = Load(service, receiver, files, seed)
        self.random = self.load.random
        self.readiness: Readiness  # set when the context is entered
        self._starts = starts
        self._receiver = receiver
        self._files = files
        self._volumes = {host: volumes(host) for host in engines}

    def start(self, *workers: str) -> None:
        """Start all processes of the Procfile, with a worker for each name, by default one named `worker`."""
        for kind in ("web", "deliver", "relay", "metrics"):
            self.service.start(kind)
        for name in workers or ("worker",):
            self.service.start("worker", name)
        self.service.wait_until_ready()

    def check(self, timeout: float = 180) -> None:
        """Wait for the end of all jobs. Raise `AssertionError` if one did not end as it must, or if anything is left over."""
        self.load.wait_until_done(timeout)
        check_outcomes(self.load.tasks, self._starts_by_id(), self.load.outages, self.service, self._receiver, self._files)
        self.load.check_refusals()
        self.check_that_nothing_is_left()

    def _starts_by_id(self) -> dict[str, int]:
        counted = sum((starts.by_job() for starts in self._starts), Counter[str]())
        return {job_id: counted[str(uuid)] for job_id, uuid in self.service.query("SELECT id, uuid FROM jobs_job")}

    def check_that_nothing_is_left(self) -> None:
        query = self.service.query
        assert query("SELECT name FROM jobs_node WHERE cpu_millis_reserved <> 0 OR memory_mib_reserved <> 0") == []
        assert query("SELECT id FROM jobs_job WHERE reserved OR owner_id IS NOT NULL") == []
        leased = "SELECT id FROM callbacks_subscription WHERE lease_token IS NOT NULL OR sending IS NOT NULL"
        # that of a process that was killed after its last event had arrived ends by itself
        wait_for(lambda: query(leased) == [], DeliveryIntervals().lease + 10, "leases to be released", step=0.1)
        assert self._spooled() == []
        wait_for(self._has_no_dead_workers, 30, "rows and locks of dead workers to be removed", step=0.1)
        self.service.restart("relay")  # it requests a sweep when it starts
        for host in self.engines:
            wait_for(lambda host=host: self._containers(host) == [], _SWEEP_SECONDS, "containers of ended jobs to go", step=0.5)
            wait_for(lambda host=host: self._ownerless(host) == [], _SWEEP_SECONDS, "sandboxes to be adopted", step=0.5)
            assert self._networks(host) <= 1
            assert volumes(host) <= self._volumes[host]

    def _has_no_dead_workers(self) -> bool:
        """Return whether there is a row and a lock for each worker. One that was just started makes its own first."""
        workers = [name for name in self.service.processes if name.startswith("worker")]
        locks = list((self.service.directory / "locks").iterdir())
        rows = self.service.query("SELECT count(*) FROM jobs_worker")
        return len(locks) == len(workers) and rows == [(len(workers),)]

    def _spooled(self) -> list[str]:
        """Return the temporary files that a process still has open: they have no name."""
        spool = str(self.service.directory / "spool")
        found = []
        for process in self.service.processes.values():
            for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
                with suppress(OSError):
                    found.append(os.readlink(descriptor))
        return [path for path in found if path.startswith(spool)]

    def _containers(self, host: str, label: str = UUID_LABEL) -> list[str]:
        """Return the names of the containers with this label, by default those of jobs."""
        labels = [f"{INSTANCE_LABEL}={self.instance}", label]
        with closing(docker.DockerClient(base_url=host, timeout=60)) as client:
            return [found.name for found in client.containers.list(all=True, filters={"label": labels}, ignore_removed=True)]

    def _ownerless(self, host: str) -> list[str]:
        """Return the names of the sandboxes whose worker is dead."""
        workers = [str(worker) for (worker,) in self.service.query("SELECT id FROM jobs_worker")]
        return [name for name in self._containers(host, NETWORK_LABEL) if not any(worker in name for worker in workers)]

    def _networks(self, host: str) -> int:
        with closing(docker.DockerClient(base_url=host, timeout=60)) as client:
            return len(client.networks.list(filters={"label": f"{INSTANCE_LABEL}={self.instance}"}))

    @property
    def instance(self) -> str:
        return str(self.service.query("SELECT name FROM jobs_instance")[0][0])

    def uuid_of(self, job_id: str) -> str:
        return str(self.service.query("SELECT uuid FROM jobs_job WHERE id = %s", job_id)[0][0])


def volumes(host: str) -> set[str]:
    """Return the volumes of an engine, except the one that it keeps with the init of all jobs."""
    with closing(docker.DockerClient(base_url=host, timeout=60)) as client:
        holders = client.containers.list(all=True, filters={"label": init.LABEL})
        kept = {mount["Name"] for holder in holders for mount in holder.attrs["Mounts"]}
        return {str(volume.name) for volume in client.volumes.list()} - kept


SystemOn = Callable[..., AbstractContextManager[System]]
