"""Measure how soon `bin/serve` accepts a job once everything is installed, and the memory of the embedded service at rest."""

import os
import signal
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import leftovers
import requests
from environment import free_port, without_service

from tests.bench.measuring.results import Row, report
from tests.bench.measuring.usage import ProcessGroup
from tests.helpers.service_processes import ROOT
from tests.helpers.waiting import wait_for

STARTS = 3
JOBS = 8
MAX_SECONDS = 60
SETTLE_SECONDS = 15
STOP_SECONDS = 30
BODY = b'{"image": "alpine:latest", "command": ["true"], "cpu": 0.5, "memory": 64}'


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        try:
            with serve(Path(directory)) as (first, *_):
                pass
            later, cpu = [], []
            for _ in range(STARTS):
                with serve(Path(directory)) as (seconds, process, port):
                    group = ProcessGroup.of_sessions([process.pid])
                    cpu.append(group.cpu_seconds())  # with that of the steps of bin/serve, which are its children or itself
                    later.append(seconds)
                    if len(later) == STARTS:
                        run_jobs(f"http://127.0.0.1:{port}")
                        time.sleep(SETTLE_SECONDS)
                        memory = group.proportional_bytes() / 1e6
        finally:
            remove_leftovers(Path(directory))
    report(
        f"bin/serve, embedded: one start on a new database, then {STARTS} more",
        [
            Row(measure="bin/serve to first 202", value=statistics.median(later), unit="s", target="< 2"),
            Row(measure="bin/serve to first 202: CPU", value=statistics.median(cpu), unit="s"),
            Row(measure="bin/serve to first 202, new database", value=first, unit="s"),
            Row(measure="memory at rest (PSS), embedded", value=memory, unit="MB", target="<= 110"),
        ],
    )


@contextmanager
def serve(state: Path) -> Iterator[tuple[float, subprocess.Popen[bytes], int]]:
    """Run bin/serve. Yield the seconds until it accepted a job, the process, and its port."""
    port = free_port()
    variables = {"STATE_DIR": str(state), "PORT": str(port), "METRICS_PORT": str(free_port())}
    started = time.monotonic()
    with (state / "serve.log").open("ab") as log:
        process = subprocess.Popen(
            [ROOT / "bin" / "serve"], env=without_service() | variables, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(lambda: accepts(process, port), MAX_SECONDS, "bin/serve to accept a job", 0.01)
        yield time.monotonic() - started, process, port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def accepts(process: subprocess.Popen[bytes], port: int) -> bool:
    """Post a job, and return whether it was accepted."""
    assert process.poll() is None, "bin/serve ended"
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    with closing(connection):
        try:
            connection.request("POST", "/v1/jobs", BODY, {"Content-Type": "application/json"})
            return connection.getresponse().status == 202
        except OSError:
            return False


def run_jobs(url: str) -> None:
    """Run some jobs at once, so that what is made on first use is there."""
    with requests.Session() as session:
        session.trust_env = False
        headers = {"Content-Type": "application/json"}
        jobs = [session.post(f"{url}/v1/jobs", data=BODY, headers=headers, timeout=10).json()["id"] for _ in range(JOBS)]
        paths = [f"{url}/v1/jobs/{job}" for job in jobs]
        wait_for(lambda: all("completedAt" in session.get(path, timeout=10).json() for path in paths), MAX_SECONDS, step=0.1)


def remove_leftovers(state: Path) -> None:
    with suppress(sqlite3.Error), closing(sqlite3.connect(state / "orchestrator.sqlite3")) as database:
        for (instance,) in database.execute("SELECT name FROM jobs_instance"):
            leftovers.remove(os.environ["DOCKER_HOST"], instance)


if __name__ == "__main__":
    main()
