"""Programs without the service that run the same containers: the `docker` command, and a loop of the Docker SDK."""

import queue
import shutil
import subprocess
import threading
import time
import uuid
from contextlib import closing
from typing import Any

import docker
from leftovers import INSTANCE_LABEL

from jobs.engine.docker.container_json import CAPABILITIES, PIDS_LIMIT, creation_body
from jobs.engine.protocol import RunSpec

IMAGE = "alpine:latest"
INSTANCE = "bench"  # whose leftovers bin/bench removes


def docker_command(*arguments: str) -> list[str]:
    """Return a command line. Exit if the `docker` command is missing."""
    program = shutil.which("docker")
    if program is None:
        raise SystemExit("The docker command is missing: install it (on Debian: apt-get install docker.io).")
    return [program, *arguments]


def run_options(cpu: float, memory_mib: int) -> list[str]:
    """Return the options of `docker run` and `docker create` that limit a container like the service's `creation_body`."""
    memory = f"{memory_mib}m"
    options = ["--init", "--network=bridge", f"--cpus={cpu}", f"--memory={memory}", f"--memory-swap={memory}"]
    options += [f"--pids-limit={PIDS_LIMIT}", "--cap-drop=ALL", *(f"--cap-add={name}" for name in CAPABILITIES)]
    options += ["--security-opt=no-new-privileges", "--log-driver=local", "--log-opt=max-size=512m", "--log-opt=max-file=2"]
    return [*options, "--log-opt=compress=false", "--workdir=/workspace", f"--label={INSTANCE_LABEL}={INSTANCE}"]


def seconds_of(*arguments: str) -> float:
    """Return how long a command takes, which must succeed."""
    started = time.perf_counter()
    subprocess.run(arguments, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def jobs_per_second(jobs: int, at_once: int, cpu: float, memory_mib: int, command: list[str]) -> float:
    """Run this many containers from create to remove with the Docker SDK, `at_once` at a time."""
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(jobs):
        todo.put(number)
    body = creation_body(
        RunSpec(
            name="",
            image=IMAGE,
            command=tuple(command),
            environment={},
            workspace="/workspace",
            cpu_millis=round(cpu * 1000),
            memory_mib=memory_mib,
            network="bridge",
            labels={INSTANCE_LABEL: INSTANCE},
            stop_grace_seconds=10,
            log_limit_bytes=1024**3,
        )
    )
    failures: list[BaseException] = []

    def work() -> None:
        with closing(docker.from_env(timeout=120)) as client:
            try:
                while not failures:
                    todo.get_nowait()
                    _run(client.api, body)
            except queue.Empty:
                pass
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(at_once)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return jobs / (time.perf_counter() - started)


def _run(api: Any, body: dict[str, Any]) -> None:
    container = api.create_container_from_config(body, name=f"bench-{uuid.uuid4().hex}")["Id"]
    api.start(container)
    api.wait(container)
    api.logs(container)
    api.remove_container(container)
