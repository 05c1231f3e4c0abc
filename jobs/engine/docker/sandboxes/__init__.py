"""Network sandboxes: containers that only wait, so that a job's container can join their network instead of waiting for one.

Docker mounts the sandbox's /etc/hostname, /etc/hosts and /etc/resolv.conf into the containers that join it, and root can change
them there. So a sandbox's program (waiter-*.s) remembers what they are at its start, and answers when it is asked whether they
still are; to read them from the engine takes 50 ms of CPU on Docker 20.10. See docs/adr/0018-network-sandboxes.md.
"""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from jobs.engine.docker.job_runtime import JobRuntime
from jobs.engine.docker.program_image import ProgramImage
from jobs.engine.docker.transport import EngineAnswer, EngineClient, quoted
from jobs.errors import EngineRefused, EngineUnavailable

_PROGRAM: Final = "/waiter"
_IMAGE: Final = ProgramImage("orchestrator-sandbox", _PROGRAM, Path(__file__).with_name("waiter"))
_MEMORY_BYTES: Final = 16 * 1024**2  # the runtime needs most of it, to start the program
_PIDS: Final = 16  # the runtime has several threads at that moment

# Without this a closed connection keeps its port for a minute, so that a server in the next job could not listen on it.
_SYSCTLS: Final = {"net.ipv4.tcp_max_tw_buckets": "0"}


class Sandboxes:
    """The network sandboxes of one engine."""

    def __init__(self, client: EngineClient, architecture: Callable[[], str], runtime: JobRuntime) -> None:
        """`architecture` returns Docker's name for the engine's architecture. `runtime` is that of job containers."""
        self._client = client
        self._architecture = architecture
        self._runtime = runtime

    def create(self, name: str, network: str, labels: dict[str, str]) -> None:
        """See `Engine.create_sandbox`."""
        if not self._runtime.shares_networks:
            raise EngineRefused("jobs cannot join the network of another container with the runtime that they have")
        architecture = self._architecture()
        if not _IMAGE.binary(architecture):
            raise EngineRefused(f"there is no sandbox program for the engine's architecture, {architecture}")
        body = _creation_body(_IMAGE.reference(architecture), network, labels, self._runtime.name)
        answer = self._create(name, body)
        if answer.status == 404:
            _IMAGE.load(self._client, architecture)
            answer = self._create(name, body)
        if not answer.failed:
            timeout = self._client.intervals.long_call
            answer = self._client.exchange("POST", f"/containers/{quoted(name)}/start", timeout=timeout)
        if answer.failed:
            raise EngineUnavailable(answer.message)

    def _create(self, name: str, body: dict[str, Any]) -> EngineAnswer:
        params, timeout = {"name": name}, self._client.intervals.long_call
        return self._client.exchange("POST", "/containers/create", params=params, body=body, timeout=timeout)

    def is_clean(self, name: str) -> bool:
        """See `Engine.is_sandbox_clean`."""
        question = secrets.token_bytes(1)
        params = {"stream": "1", "stdin": "1", "stdout": "1"}
        path, timeout = f"/containers/{quoted(name)}/attach", self._client.intervals.sandbox_answer
        return self._client.ask(path, question, params=params, timeout=timeout) == question


def _creation_body(image: str, network: str, labels: dict[str, str], runtime: str) -> dict[str, Any]:
    return {
        "Image": image,
        "Entrypoint": [_PROGRAM],
        "User": "65534:65534",
        "OpenStdin": True,
        "StopSignal": "SIGKILL",  # it heeds no other, and an engine that stops would wait 10 s for it
        "Labels": labels,
        "HostConfig": {
            "NetworkMode": network,
            "Runtime": runtime,
            "Sysctls": _SYSCTLS,
            "Memory": _MEMORY_BYTES,
            "PidsLimit": _PIDS,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": True,
            "LogConfig": {"Type": "none"},
            "RestartPolicy": {"Name": "no"},
        },
    }
