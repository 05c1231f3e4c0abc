"""How the init of `jobs.engine.container_init` gets into containers.

Containers mount it read-only from the volume of a *holder*, a container that never runs. If the holder is missing, a container
cannot be created: the holder is then made, and the container created again. See docs/adr/0014-our-own-init.md.
"""

import copy
import json
import threading
import time
from functools import cache
from typing import Final

from jobs.engine.container_init import COMMAND, DIRECTORY, SOURCE
from jobs.engine.docker.program_image import ProgramImage
from jobs.engine.docker.transport import TRANSPORT_ERRORS, EngineAnswer, EngineClient, engine_unavailable, quoted
from jobs.errors import ContainerNotFound, EngineInTrouble, EngineUnavailable

LABEL: Final = "orchestrator.init"

_IMAGE: Final = ProgramImage("orchestrator-init", COMMAND, SOURCE)


class _SharedState:
    """State that all copies of an `Init` share."""

    def __init__(self) -> None:
        self.architecture: str | None = None
        self.holder_is_checked = False
        self.lock = threading.Lock()  # held while a thread checks or makes the holder


class Init:
    """The init of one engine. Thread-safe."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client
        self._shared = _SharedState()

    def using(self, client: EngineClient) -> "Init":
        """Return the same init, managed through another client."""
        init = copy.copy(self)
        init._client = client
        return init

    def architecture(self) -> str:
        """Return Docker's name for the engine's architecture. Raise `EngineUnavailable`."""
        if self._shared.architecture is None:
            self._shared.architecture = str(self._client.call("GET", "/version").get("Arch", ""))
        return self._shared.architecture

    def holder(self) -> str:
        """Return the name of the holder, empty if there is no init for the engine's architecture.

        Raise `EngineUnavailable`.
        """
        version = _version(self.architecture())
        return f"{_IMAGE.repository}-{version}" if version else ""

    def checked_holder(self) -> str:
        """Return the name of the holder. The first call removes a holder whose init is damaged, as after a power cut."""
        holder = self.holder()
        with self._client.interrupt.holding(self._shared.lock):
            if holder and not self._shared.holder_is_checked:
                self._remove_if_damaged(holder)
            self._shared.holder_is_checked = True
        return holder

    def exists(self) -> bool:
        """Return whether the holder exists. Raise `EngineUnavailable`."""
        return self._container_id(self.holder()) is not None

    def is_missing(self, message: str) -> bool:
        """Return whether a container may have failed to be created because the holder is missing.

        Other error messages may contain the holder's name, too.
        """
        return bool(self.holder()) and self.holder() in message

    def make_holder(self) -> None:
        """Make the holder if it does not exist, using whatever an earlier attempt has left.

        Raise `EngineInTrouble` if the engine refuses it, since no job can start without the init.
        """
        with self._client.interrupt.holding(self._shared.lock):
            answer = self._create_holder()
            if answer.status == 404:
                _IMAGE.load(self._client, self.architecture())
                answer = self._create_holder()
            if answer.status == 409:  # another worker has made it, or is making it
                self._wait_for_holder()
            elif answer.failed:
                raise EngineInTrouble(f"the init cannot be installed on the engine: {answer.message}")
            else:
                self._remove_superseded()

    def _create_holder(self) -> EngineAnswer:
        version = _version(self.architecture())
        body = {
            "Image": _IMAGE.reference(self.architecture()),
            "Cmd": [COMMAND],
            "Volumes": {DIRECTORY: {}},
            "Labels": {LABEL: version},
            "HostConfig": {"NetworkMode": "none"},
        }
        timeout = self._client.intervals.long_call
        return self._client.exchange("POST", "/containers/create", params={"name": self.holder()}, body=body, timeout=timeout)

    def _remove_if_damaged(self, holder: str) -> None:
        # By its id, because another worker may have removed it meanwhile, and made a new one of the same name.
        container_id = self._container_id(holder)
        if container_id is not None and not self._is_intact(container_id):
            self._remove(container_id)

    def _container_id(self, name: str) -> str | None:
        try:
            return str(self._client.call("GET", f"/containers/{quoted(name)}/json")["Id"])
        except ContainerNotFound:
            return None

    def _is_intact(self, container_id: str) -> bool:
        path = f"/containers/{container_id}/archive"
        timeout = self._client.intervals.long_call
        with self._client.stream("GET", path, params={"path": COMMAND}, timeout=timeout) as response:
            if isinstance(response, EngineAnswer):
                return False
            try:
                return _IMAGE.binary(self.architecture()) in response.content
            except TRANSPORT_ERRORS as error:
                raise engine_unavailable(error) from error

    def _remove(self, container_id: str) -> None:
        timeout = self._client.intervals.long_call
        self._client.exchange("DELETE", f"/containers/{container_id}", params={"v": "1"}, timeout=timeout)

    def _wait_for_holder(self) -> None:
        """Wait a moment for the holder that another worker is making: the engine reserves its name before it exists."""
        for pause in (*self._client.intervals.holder_checks, 0.0):
            if self.exists():
                return
            self._client.interrupt.sleep(pause)
        raise EngineUnavailable("another worker is installing the init on the engine")

    def _remove_superseded(self) -> None:
        """Remove old holders of other releases. Their volumes stay until the last container that mounts them is removed."""
        intervals = self._client.intervals
        params = {"all": "1", "filters": json.dumps({"label": [LABEL]})}
        for found in self._client.call("GET", "/containers/json", params=params) or []:
            version = found["Labels"][LABEL]
            if f"/{_IMAGE.repository}-{version}" not in (found.get("Names") or []):
                continue  # an image may have this label, too
            if version == _version(self.architecture()) or time.time() - found["Created"] < intervals.superseded_init:
                continue
            self._remove(found["Id"])
            self._client.exchange("DELETE", f"/images/{quoted(f'{_IMAGE.repository}:{version}')}", timeout=intervals.long_call)


@cache
def _version(architecture: str) -> str:
    return _IMAGE.version(architecture)
