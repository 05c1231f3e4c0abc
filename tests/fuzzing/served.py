"""`bin/serve` as the attacked service, with a state of its own."""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import leftovers
import requests
from environment import free_port, without_service

from tests.fuzzing.inputs.targets import JOB_ID
from tests.helpers.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 120
_STOP_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Served:
    """A running service."""

    port: int
    metrics_port: int
    log: Path
    parent: int  # the process that watches the service

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> int:
        """Return the process that serves."""
        (child,) = Path(f"/proc/{self.parent}/task/{self.parent}/children").read_text().split()
        return int(child)

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self.url + path, timeout=20, **options)

    def faults(self) -> list[str]:
        """Return what is wrong with it: it no longer answers, or has logged an exception."""
        found = [] if _is_live(self) else [f"{self.url}/livez does not answer"]
        log = self.log.read_text(errors="replace")
        begin = log.find("Traceback")
        return found if begin < 0 else [*found, f"an exception in the log: {log[begin : begin + 3000]}"]


@contextmanager
def served(directory: Path) -> Iterator[Served]:
    """Run `bin/serve` with a job that has a log. What it leaves on the engine is removed at the end."""
    log, port, metrics_port = directory / "serve.log", free_port(), free_port()
    variables = {"STATE_DIR": str(directory), "PORT": str(port), "METRICS_PORT": str(metrics_port)}
    with log.open("wb") as output:
        process = subprocess.Popen([ROOT / "bin/serve"], env=without_service() | variables, stdout=output, stderr=output)
    service = Served(port, metrics_port, log, process.pid)
    try:
        wait_for(lambda: process.poll() is not None or _is_live(service), _START_SECONDS, "bin/serve to answer", step=0.2)
        job = {"id": JOB_ID, "image": "alpine:latest", "command": "echo a; echo b >&2"}
        assert service.call("POST", "/v1/jobs", json=job).status_code == 202
        wait_for(lambda: service.call("GET", f"/v1/jobs/{JOB_ID}").json().get("completedAt"), _START_SECONDS, "the job", step=0.2)
        yield service
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        finally:
            process.kill()
            process.wait()
        with closing(sqlite3.connect(directory / "orchestrator.sqlite3")) as database:
            for (instance,) in database.execute("SELECT name FROM jobs_instance"):
                leftovers.remove(os.environ["DOCKER_HOST"], instance)


def _is_live(service: Served) -> bool:
    with suppress(requests.ConnectionError):
        return service.call("GET", "/livez").ok
    return False
