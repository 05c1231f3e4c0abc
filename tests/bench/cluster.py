"""Measure jobs on a Kubernetes cluster, beside a bare loop that runs the same Jobs with the Python client."""

import os
import statistics
import tempfile
import time
from pathlib import Path

from tests.bench.latency import COMMAND, CPU, MEMORY, submitted
from tests.bench.measuring.bare_cluster import IMAGE, BareLoop, new_namespace
from tests.bench.measuring.event_receiver import EventReceiver
from tests.bench.measuring.file_server import FileServer
from tests.bench.measuring.installation import installation, processes, submit, warm_up
from tests.bench.measuring.results import Row, report
from tests.bench.transfers import MEBIBYTE, SIZE, download, upload
from tests.helpers.service_processes import Service

TURNS = 15
NODE_PERIOD = 1.0  # seconds between two looks of a kubelet at its containers
JOBS = 60
SMALL_CPU, SMALL_MEMORY = 0.03, 16  # all fit at once on two cores
TRANSFERS = 3
MEGABYTE = 1_000_000
MAX_SECONDS = 240


def main() -> None:
    with new_namespace() as namespace, BareLoop(namespace) as bare, EventReceiver() as receiver:
        variables = {
            "ENGINE": "kubernetes",
            "KUBECONFIG": os.environ["KUBECONFIG"],
            "KUBE_NAMESPACE": namespace,
            "KUBE_HELPER_IMAGE": IMAGE,
        }
        with installation(**variables) as service:
            warm_up(service, receiver.url)
            report(f"On a cluster: {TURNS} jobs in turn with as many of a bare loop", [latency(service, receiver, bare)])
            report(f"On a cluster: {JOBS} jobs at once", [throughput(service, receiver, bare)])
            report(
                f"On a cluster: 1 GiB from and to a file server on loopback, medians of {TRANSFERS}", transfers(service, receiver)
            )


def latency(service: Service, receiver: EventReceiver, bare: BareLoop) -> Row:
    """Run single jobs of the service and of the bare loop in turn, each on an idle cluster.

    A node notices ends once per second, so they begin at moments that are spread over a second, the same for both.
    """
    ours, bares = [], []
    for turn in range(TURNS):
        pause = turn / TURNS * NODE_PERIOD
        bare.wait_until_idle()
        time.sleep(pause)
        ours.append(submitted(service, receiver))
        bare.wait_until_idle()
        time.sleep(pause)
        bares.append(bare.seconds(1, CPU, MEMORY, COMMAND))
    median, bare_median = statistics.median(ours), statistics.median(bares)
    return Row(
        measure="on a cluster: submit to exit event, idle",
        value=median / bare_median,
        detail=f"{median * 1000:.0f} ms",
        against=f"bare loop: {bare_median * 1000:.0f} ms",
        target="<= 1.15",
    )


def throughput(service: Service, receiver: EventReceiver, bare: BareLoop) -> Row:
    """Run many small jobs at once, those of the bare loop half before and half after."""
    bare.wait_until_idle()
    before = bare.seconds(JOBS, SMALL_CPU, SMALL_MEMORY, COMMAND)
    bare.wait_until_idle()
    ours = together(service, receiver)
    bare.wait_until_idle()
    after = bare.seconds(JOBS, SMALL_CPU, SMALL_MEMORY, COMMAND)
    bare_seconds = (before + after) / 2
    return Row(
        measure=f"on a cluster: jobs/s, {JOBS} at once",
        value=bare_seconds / ours,
        detail=f"{JOBS / ours:.1f}/s",
        against=f"bare loop: {JOBS / bare_seconds:.1f}/s",
        target=">= 0.95",
    )


def together(service: Service, receiver: EventReceiver) -> float:
    """Return the seconds from the first submission of `JOBS` jobs to the arrival of the last exit event."""
    receiver.clear()
    started = time.monotonic()
    callback = {"url": receiver.url, "key": "key"}
    submit(service, JOBS, {"image": IMAGE, "command": COMMAND, "cpu": SMALL_CPU, "memory": SMALL_MEMORY, "callback": callback})
    exits = receiver.wait_for_count(JOBS, MAX_SECONDS, "exit")
    receiver.wait_for_count(JOBS, MAX_SECONDS, "complete")
    return max(arrival.time for arrival in exits) - started


def transfers(service: Service, receiver: EventReceiver) -> list[Row]:
    """Move a large file into jobs and out of jobs."""
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(SIZE)
        with FileServer(Path(file.name)) as server:
            worker = processes(service, "worker")
            worker.reset_peak()
            at_rest = worker.resident_bytes()
            rows = [
                speed("in", [download(service, receiver, server) for _ in range(TRANSFERS)]),
                speed("out", [upload(service, receiver, server) for _ in range(TRANSFERS)]),
            ]
            growth = (worker.peak_bytes() - at_rest) / MEBIBYTE
    return [*rows, Row(measure="on a cluster: memory of the worker, growth", value=growth, unit="MiB", target="<= 16")]


def speed(direction: str, seconds: list[float]) -> Row:
    median = statistics.median(seconds)
    measure = f"on a cluster: 1 GiB {direction}"
    return Row(measure=measure, value=SIZE / MEGABYTE / median, unit="MB/s", detail=f"{median:.2f} s", target=">= 100")


if __name__ == "__main__":
    main()
