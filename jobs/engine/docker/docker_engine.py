"""One Docker engine as `jobs.engine.protocol.Engine`."""

import copy
import json
import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from jobs.engine.docker.container_files import ContainerFiles
from jobs.engine.docker.container_json import description, listed, observation
from jobs.engine.docker.daemon_restarts import Restarts
from jobs.engine.docker.image_pulls import Images
from jobs.engine.docker.init import Init
from jobs.engine.docker.kernel_log import tells_of_oom_kill
from jobs.engine.docker.log_frames import read_frames
from jobs.engine.docker.start_errors import NO_COMMAND, cause_of, check_arguments
from jobs.engine.docker.transport.answer_stream import ByteStream
from jobs.engine.docker.transport.api_client import LONG, SHORT, EngineAnswer, EngineConnection, quoted
from jobs.engine.docker.unenforced_limits import Warnings, flagged
from jobs.engine.protocol import EngineInfo, Frame, Observation, PullPolicy, RegistryCheck, RunSpec, Stat, User, any_registry
from jobs.errors import (
    ContainerConflict,
    ContainerNotFound,
    EngineInTrouble,
    EngineRefused,
    EngineUnavailable,
    ImageUnavailable,
    NetworkMissing,
    StartFailed,
    StartLost,
    StartRefused,
)
from jobs.interrupt import Interrupt

logger = logging.getLogger(__name__)

KILLED = 137  # the exit code of a process that SIGKILL ended
NOT_EXECUTABLE = 126  # and of a program that the kernel cannot execute
_BEING_REMOVED = ("removing", "dead")
_LEFT_IN_CONTAINERD = "id already in use"  # by a dockerd that was killed amid the start: no later one gets past it (20.10)


class DockerEngine:
    """The engine at `host` (as in `DOCKER_HOST`; empty: the usual socket; TLS as docker-py reads it from the environment).

    Making one connects to nothing. Raises `EngineRefused` where `host` or the TLS files cannot be used.
    """

    schedules = False
    tells_streams = True

    def __init__(self, host: str) -> None:
        self._connection = EngineConnection(host)
        self._restarts = Restarts(host)
        self._images = Images(self._connection, self._restarts)
        self._init = Init(self._connection)
        self._files = ContainerFiles(self._connection)
        self._warnings = Warnings()

    def bound(self, interrupt: Interrupt, patience: float | None = None) -> "DockerEngine":
        engine = copy.copy(self)
        engine._connection = self._connection.bound(interrupt, patience)
        engine._images = self._images.on(engine._connection)
        engine._init = self._init.on(engine._connection)
        engine._files = ContainerFiles(engine._connection)
        engine._restarts = self._restarts.bound(interrupt, patience)
        return engine

    def info(self) -> EngineInfo:
        said = self._connection.call("GET", "/info")
        flags = flagged(said, self._connection.api_version)
        warnings = [*flags, *self._warnings.read(said.get("Warnings") or []), *self._warnings.kept()]
        return EngineInfo(
            id=said["ID"],
            name=said["Name"],
            cpus=float(said["NCPU"]),
            memory_bytes=int(said["MemTotal"]),
            warnings=tuple(dict.fromkeys(warnings)),
            clock=datetime.fromisoformat(said["SystemTime"]).astimezone(UTC),
        )

    # -- networks ------------------------------------------------------------------------------
    def create_network(self, name: str, labels: dict[str, str]) -> str:
        body = {
            "Name": name,
            "Driver": "bridge",
            "CheckDuplicate": True,
            "Options": {"com.docker.network.bridge.enable_icc": "false"},
            "Labels": labels,
        }
        return str(self._connection.call("POST", "/networks/create", body=body, timeout=LONG)["Id"])

    def find_network(self, network_id: str) -> str | None:
        answer = self._connection.exchange("GET", f"/networks/{quoted(network_id)}")
        if answer.status == 404:
            return None
        if answer.failed:
            raise answer.error()
        # The engine also takes names and beginnings of ids here.
        return str(answer.data["Name"]) if answer.data["Id"] == network_id else None

    def list_networks(self, labels: dict[str, str]) -> dict[str, str]:
        found = self._connection.call("GET", "/networks", params=_filters(labels))
        return {network["Id"]: network["Name"] for network in found or []}

    def remove_network(self, network_id: str) -> None:
        answer = self._connection.exchange("DELETE", f"/networks/{quoted(network_id)}", timeout=LONG)
        if answer.failed and answer.status != 404:
            raise ContainerConflict(answer.message) if answer.status == 403 else answer.error()

    # -- images --------------------------------------------------------------------------------
    def ensure_image(
        self,
        image: str,
        policy: PullPolicy,
        timeout: float,
        interrupt: Interrupt,
        check_registry: RegistryCheck = any_registry,
    ) -> None:
        self._images.ensure(image, policy, timeout, interrupt, check_registry)

    def resolve_user(self, name: str) -> User:
        return self._files.resolve_user(name, self._inspected(name)["Config"].get("User") or "")

    # -- containers ----------------------------------------------------------------------------
    def create(self, spec: RunSpec) -> None:
        body = self._description(spec)
        answer = self._create(spec.name, body)
        if answer.status == 409:  # an earlier try of ours, unless it has started
            try:
                phase = self.inspect(spec.name).phase
            except ContainerNotFound:
                phase = "created"
            if phase != "created":
                raise ContainerConflict(f"the container {spec.name} has started already")
            self.remove(spec.name)
            answer = self._create(spec.name, body)
        if not answer.failed:
            self._warnings.keep((answer.data or {}).get("Warnings") or [])
            return
        if spec.network is not None and self._network_is_gone(spec.network):
            raise NetworkMissing(answer.message)
        if answer.status == 404:
            raise ImageUnavailable(f"the image {body['Image']} is not on the engine")
        if answer.status != 409:
            logger.warning("the engine made no container: %s", answer.message, extra={"container": spec.name})
            cause = cause_of(answer.message, body)
            if answer.status < 500 or cause.fault == "job":
                raise EngineRefused(cause.sentence)
            if cause.fault == "engine":
                raise EngineInTrouble(answer.message)
            raise StartRefused(answer.message, cause.sentence)
        raise answer.error()

    def rename(self, name: str, new_name: str) -> None:
        self._connection.call("POST", f"/containers/{quoted(name)}/rename", params={"name": new_name})

    def start(self, name: str) -> None:
        inspected = self._inspected(name)
        if observation(inspected).phase != "created":  # the engine would run an ended one again
            raise ContainerConflict(f"the container {name} has started already")
        check_arguments(inspected["Config"])
        answer = self._connection.exchange("POST", f"/containers/{quoted(name)}/start", timeout=LONG)
        if answer.status == 304:
            raise ContainerConflict(f"the container {name} has started already")
        if answer.failed:
            raise self._start_error(name, answer)

    def _start_error(self, name: str, answer: EngineAnswer) -> Exception:
        """What the failed start means. What is missing of a 404 may be the container, its network or the program."""
        inspected = self._inspected(name)  # or ContainerNotFound
        if observation(inspected).phase != "created":
            return ContainerConflict(f"the container {name} has started already")
        if answer.status == 409:
            return answer.error()
        if self._network_is_gone(inspected["HostConfig"]["NetworkMode"]):
            return NetworkMissing(answer.message)
        if answer.message == _LEFT_IN_CONTAINERD:
            return StartLost("the engine ended while it started the process, which may have run")
        logger.warning("the engine started no process: %s", answer.message, extra={"container": name})
        cause = cause_of(answer.message, inspected["Config"])
        if cause.fault == "engine":
            return EngineInTrouble(answer.message)
        return StartFailed(cause.sentence) if cause.fault == "job" else StartRefused(answer.message, cause.sentence)

    def _network_is_gone(self, name: str) -> bool:
        """Asked after a failure: engines have many words for it, and change them."""
        return self._connection.exchange("GET", f"/networks/{quoted(name)}").status == 404

    def inspect(self, name: str) -> Observation:
        inspected = self._inspected(name)
        seen = observation(inspected)
        if seen.phase != "ended":
            return seen
        if seen.exit_code == NOT_EXECUTABLE:
            seen = replace(seen, wrong_platform=self._wrong_platform(inspected["Image"]))
        oom_killed = seen.oom_killed or (seen.exit_code == KILLED and tells_of_oom_kill(inspected["Id"]))
        return replace(seen, oom_killed=oom_killed, lost=self._restarts.ended(inspected["Id"], seen))

    def wait(self, name: str, interrupt: Interrupt, timeout: float | None = None) -> None:
        with self._streamed("POST", f"/containers/{quoted(name)}/wait", {"condition": "not-running"}, interrupt) as stream:
            if not stream.ready(timeout):
                return
            answer = json.loads(b"".join(stream.lines(1024**2)) or b"{}")
        if error := (answer.get("Error") or {}).get("Message"):
            raise EngineUnavailable(str(error)[:1000])

    def stop(self, name: str, grace: float) -> None:
        seconds = max(math.ceil(grace), 0)
        self._connection.call("POST", f"/containers/{quoted(name)}/stop", params={"t": str(seconds)}, timeout=seconds + LONG)

    def remove(self, name: str, *, force: bool = False) -> None:
        params = {"v": "1", "force": "1" if force else "0"}
        answer = self._connection.exchange("DELETE", f"/containers/{quoted(name)}", params=params, timeout=LONG)
        if answer.status == 409 and "already in progress" in answer.message:  # somebody else's: wait for it
            params = {"condition": "removed"}
            answer = self._connection.exchange("POST", f"/containers/{quoted(name)}/wait", params=params, timeout=LONG)
        if answer.failed and answer.status != 404:
            raise answer.error()

    def list(self, labels: dict[str, str]) -> list[Observation]:
        summaries = self._connection.call("GET", "/containers/json", params={"all": "1", **_filters(labels)})
        return [seen for summary in summaries or [] if (seen := listed(summary))]

    # -- logs ----------------------------------------------------------------------------------
    @contextmanager
    def logs(self, name: str, *, skip: int, follow: bool, interrupt: Interrupt) -> Iterator[Iterator[Frame | None]]:
        params = {"stdout": "1", "stderr": "1", "timestamps": "1", "tail": "all", "follow": "1" if follow else "0"}
        with self._streamed("GET", f"/containers/{quoted(name)}/logs", params, interrupt) as stream:
            yield read_frames(stream, skip=skip, tell_idle=follow)

    # -- files ---------------------------------------------------------------------------------
    def stat(self, name: str, path: str) -> Stat | None:
        return self._files.stat(name, path)

    def real_path(self, name: str, path: str) -> str:
        return self._files.real_path(name, path)

    def added_directories(self, name: str, paths: Iterable[str]) -> set[str]:
        return self._files.added_directories(name, paths)

    def put(self, name: str, directory: str, tar: Iterable[bytes]) -> None:
        self._files.put(name, directory, tar)

    def get(self, name: str, path: str) -> AbstractContextManager[Iterator[bytes]]:
        return self._files.get(name, path)

    def _inspected(self, name: str) -> dict[str, Any]:
        inspected: dict[str, Any] = self._connection.call("GET", f"/containers/{quoted(name)}/json")
        if inspected["State"].get("Status") in _BEING_REMOVED:  # what it says of its end is the removal's doing
            raise ContainerNotFound(f"the container {name} is being removed")
        return inspected

    def _description(self, spec: RunSpec) -> dict[str, Any]:
        holder = self._init.checked_holder()
        if not holder or spec.command is not None:
            return description(spec, holder)
        image_id, command = self._images.own_command(spec.image)
        if not command:
            raise EngineRefused(NO_COMMAND)
        # By its id: the name may have moved to an image with another command.
        return description(replace(spec, command=command), holder) | {"Image": image_id}

    def _create(self, name: str, body: dict[str, Any]) -> EngineAnswer:
        answer = self._try_to_create(name, body)
        if answer.failed and self._init.is_missing(answer.message):
            self._init.make_holder()
            answer = self._try_to_create(name, body)
        return answer

    def _try_to_create(self, name: str, body: dict[str, Any]) -> EngineAnswer:
        return self._connection.exchange("POST", "/containers/create", params={"name": name}, body=body, timeout=LONG)

    def _wrong_platform(self, image_id: str) -> str:
        image, node = self._images.architecture(image_id), self._init.architecture()
        return f"image is for {image}, node is {node}" if image and image != node else ""

    @contextmanager
    def _streamed(self, method: str, path: str, params: dict[str, str], interrupt: Interrupt) -> Iterator[ByteStream]:
        with self._connection.bound(interrupt).stream(method, path, params=params, timeout=SHORT) as response:
            if isinstance(response, EngineAnswer):
                raise response.error()
            yield ByteStream(response, interrupt)


def _filters(labels: dict[str, str]) -> dict[str, str]:
    return {"filters": json.dumps({"label": [f"{name}={value}" for name, value in labels.items()]})}
