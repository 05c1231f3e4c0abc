"""Measure a download input and an upload output of 1 GiB, beside `docker cp` and a bare HTTP transfer, one after the other."""

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.measuring.bare_engine import IMAGE, docker_command, run_options, seconds_of
from tests.bench.measuring.event_receiver import EventReceiver
from tests.bench.measuring.file_server import FileServer
from tests.bench.measuring.installation import installation, processes, warm_up
from tests.bench.measuring.results import Row, report
from tests.helpers.service_processes import Service

SIZE = 1024**3
TIMES = 3
WRITE = ["dd", "if=/dev/zero", "of=out", "bs=1M", f"count={SIZE // 1024**2}"]
MAX_SECONDS = 120
MEBIBYTE = 1024**2


def main() -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(SIZE)
        with FileServer(Path(file.name)) as server, EventReceiver() as receiver, installation() as service:
            warm_up(service, receiver.url)
            download(service, receiver, server)
            upload(service, receiver, server)
            worker = processes(service, "worker")
            worker.reset_peak()
            at_rest = worker.resident_bytes()
            rows = [
                compared(
                    "1 GiB download input", lambda: download(service, receiver, server), lambda: bare_download(server, file.name)
                ),
                compared("1 GiB upload output", lambda: upload(service, receiver, server), lambda: bare_upload(server)),
            ]
            growth = (worker.peak_bytes() - at_rest) / MEBIBYTE
    rows.append(Row(measure="memory of the worker during transfers: growth", value=growth, unit="MiB", target="<= 16"))
    report(f"1 GiB from and to a file server on loopback, medians of {TIMES}", rows)


def compared(measure: str, ours: Callable[[], float], bare: Callable[[], tuple[float, float]]) -> Row:
    """Take the two in turn. The ratio says how much of the bare programs' speed the service reaches."""
    seconds, bare_seconds = [], []
    for _ in range(TIMES):
        seconds.append(ours())
        bare_seconds.append(bare())
    median = statistics.median(seconds)
    copy, transfer = (statistics.median(part) for part in zip(*bare_seconds, strict=True))
    return Row(
        measure=measure,
        value=(copy + transfer) / median,
        detail=f"{median:.2f} s",
        against=f"docker cp {copy:.2f} s, HTTP {transfer:.2f} s",
        target=">= 0.95",
    )


def download(service: Service, receiver: EventReceiver, server: FileServer) -> float:
    """Run a job with this input. Return the seconds from the request at the file server to the `input` event."""
    inputs = [{"id": "in", "type": "download", "path": "in", "url": server.url}]
    identity = service.post_job(command=["true"], inputs=inputs, callback={"url": receiver.url})
    arrived = receiver.wait_for("input", identity, MAX_SECONDS)
    begun = server.begun()
    receiver.wait_for("complete", identity, MAX_SECONDS)
    return arrived.time - begun


def upload(service: Service, receiver: EventReceiver, server: FileServer) -> float:
    """Run a job with this output. Return the seconds from its `exit` event to its `output` event."""
    outputs = [{"id": "out", "type": "upload", "path": "out", "url": server.url}]
    identity = service.post_job(command=WRITE, outputs=outputs, callback={"url": receiver.url})
    exited = receiver.wait_for("exit", identity, MAX_SECONDS)
    sent = receiver.wait_for("output", identity, MAX_SECONDS)
    receiver.wait_for("complete", identity, MAX_SECONDS)
    return sent.time - exited.time


def bare_download(server: FileServer, path: str) -> tuple[float, float]:
    """Return the seconds to copy the file into a container, and to download it."""
    with container("true") as name:
        return seconds_of(*docker_command("cp", path, f"{name}:/in")), timed(server.download)


def bare_upload(server: FileServer) -> tuple[float, float]:
    """Return the seconds to read the file from a container, and to upload it."""
    with container(*WRITE) as name:
        subprocess.run(docker_command("start", "--attach", name), check=True, capture_output=True)
        return seconds_of(*docker_command("cp", f"{name}:/workspace/out", "-")), timed(server.upload)


@contextmanager
def container(*command: str) -> Iterator[str]:
    """Create a container, and remove it at the end."""
    arguments = docker_command("create", *run_options(1, 512), IMAGE, *command)
    name = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield name
    finally:
        subprocess.run(docker_command("rm", "--force", name), check=True, capture_output=True)


def timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
