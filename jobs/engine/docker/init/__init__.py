"""The first process (PID 1) of a job's container: init.c, and how it gets into containers (docs/adr/0014-our-own-init.md).

Containers mount it, read-only, from a volume of the holder: a container that never runs, made of an image that has nothing else
in it. Docker fills the volume before the holder can be seen, so no container mounts it half full. A container whose holder is
missing cannot be created: the holder is then made, and the container created again.
"""

import copy
import hashlib
import io
import json
import tarfile
import threading
import time
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Final

from jobs.engine.docker.transport.api_client import LONG, EngineAnswer, EngineConnection, quoted, transport_errors, unavailable
from jobs.errors import EngineInTrouble, EngineUnavailable

DIRECTORY: Final = "/dev/orchestrator"  # every engine mounts its own /dev, so no image can have anything there
COMMAND: Final = f"{DIRECTORY}/init"
LABEL: Final = "orchestrator.init"

_ARCHITECTURES = ("amd64", "arm64")  # in Docker's words
_REPOSITORY = "orchestrator-init"
_SUPERSEDED_SECONDS = 7 * 24 * 3600  # workers of an older release may still use theirs: they make it again if it is gone


class _Known:
    """What was learned of one engine."""

    def __init__(self) -> None:
        self.architecture: str | None = None
        self.holder_is_checked = False
        self.lock = threading.Lock()  # held by the one thread that looks at the holder or makes it


class Init:
    """The init of one engine. Thread-safe."""

    def __init__(self, connection: EngineConnection) -> None:
        self._connection = connection
        self._known = _Known()

    def on(self, connection: EngineConnection) -> "Init":
        """Return the same init, asked for over another connection."""
        init = copy.copy(self)
        init._connection = connection
        return init

    def architecture(self) -> str:
        """Return Docker's name for the engine's architecture. Raises `EngineUnavailable`."""
        if self._known.architecture is None:
            self._known.architecture = str(self._connection.call("GET", "/version").get("Arch", ""))
        return self._known.architecture

    def holder(self) -> str:
        """Return the name of the holder, empty if there is no init for the engine's architecture. Raises `EngineUnavailable`."""
        version = _version(self.architecture())
        return f"{_REPOSITORY}-{version}" if version else ""

    def checked_holder(self) -> str:
        """Return the same, after removing a holder whose init is damaged at the first call.

        A power cut can lose what Docker wrote last and leave the holder.
        """
        holder = self.holder()
        with self._connection.interrupt.holding(self._known.lock):
            if holder and not self._known.holder_is_checked and not self._is_intact(holder):
                self._remove(holder)
            self._known.holder_is_checked = True
        return holder

    def is_missing(self, message: str) -> bool:
        """Say whether a failed creation may be due to the holder's absence: other errors may name it, too."""
        return bool(self.holder()) and self.holder() in message

    def make_holder(self) -> None:
        """Make the holder if it does not exist, from whatever an earlier try has left.

        Raises `EngineInTrouble` if the engine refuses it: no job can start without the init.
        """
        with self._connection.interrupt.holding(self._known.lock):
            answer = self._create_holder()
            if answer.status == 404:
                self._load_image()
                answer = self._create_holder()
            if answer.status == 409:  # another worker has made it, or is about to
                self._check_holder()
            elif answer.failed:
                raise EngineInTrouble(f"the init cannot be brought onto the engine: {answer.message}")
            else:
                self._remove_superseded()

    def _create_holder(self) -> EngineAnswer:
        version = _version(self.architecture())
        body = {
            "Image": f"{_REPOSITORY}:{version}",
            "Cmd": [COMMAND],
            "Volumes": {DIRECTORY: {}},
            "Labels": {LABEL: version},
            "HostConfig": {"NetworkMode": "none"},
        }
        return self._connection.exchange("POST", "/containers/create", params={"name": self.holder()}, body=body, timeout=LONG)

    def _is_intact(self, holder: str) -> bool:
        path = f"/containers/{quoted(holder)}/archive"
        with self._connection.stream("GET", path, params={"path": COMMAND}, timeout=LONG) as response:
            if isinstance(response, EngineAnswer):
                return False
            try:
                return _binary(self.architecture()) in response.content
            except transport_errors() as error:
                raise unavailable(error) from error

    def _remove(self, holder: str) -> None:
        self._connection.exchange("DELETE", f"/containers/{quoted(holder)}", params={"v": "1"}, timeout=LONG)

    def _check_holder(self) -> None:
        answer = self._connection.exchange("GET", f"/containers/{quoted(self.holder())}/json")
        if answer.failed:
            raise EngineUnavailable(f"another worker is bringing the init onto the engine: {answer.message}")

    def _load_image(self) -> None:
        archive = _image(self.architecture())
        answer = self._connection.upload("/images/load", method="POST", params={"quiet": "1"}, chunks=[archive])
        # Once it has begun to read, the engine answers 200 and reports an error in the body.
        reported = answer.data.get("error") if isinstance(answer.data, dict) else None
        error = answer.message or reported
        if error:
            raise EngineInTrouble(f"the image of the init cannot be loaded: {error}")

    def _remove_superseded(self) -> None:
        """Remove the holders of other releases. Their volumes stay until the last container that mounts them is removed."""
        params = {"all": "1", "filters": json.dumps({"label": [LABEL]})}
        for found in self._connection.call("GET", "/containers/json", params=params) or []:
            version = found["Labels"][LABEL]
            if version == _version(self.architecture()) or time.time() - found["Created"] < _SUPERSEDED_SECONDS:
                continue
            self._remove(found["Id"])
            self._connection.exchange("DELETE", f"/images/{quoted(f'{_REPOSITORY}:{version}')}", timeout=LONG)


@cache
def _version(architecture: str) -> str:
    """Name what is in the volume; empty if there is no init for that architecture."""
    return hashlib.sha256(_layer(architecture)).hexdigest()[:12] if _binary(architecture) else ""


def _binary(architecture: str) -> bytes:
    """Return the init for that architecture, empty if there is none."""
    return Path(__file__).with_name(f"init-{architecture}").read_bytes() if architecture in _ARCHITECTURES else b""


def _layer(architecture: str) -> bytes:
    path = PurePosixPath(COMMAND.lstrip("/"))
    directories = [str(parent) for parent in reversed(path.parents[:-1])]
    return _tar({**dict.fromkeys(directories), str(path): _binary(architecture)})


def _image(architecture: str) -> bytes:
    """Return the image as `docker save` writes it: the same bytes each time, so loading it twice makes one image."""
    layer = _layer(architecture)
    configuration = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [f"{_REPOSITORY}:{_version(architecture)}"], "Layers": ["layer.tar"]}]
    return _tar({name: configuration, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()})


def _tar(entries: dict[str, bytes | None]) -> bytes:
    """Return a tar archive of files and directories (None) that everybody may read and execute."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            member.size = len(content or b"")
            tar.addfile(member, io.BytesIO(content or b""))
    return archive.getvalue()
