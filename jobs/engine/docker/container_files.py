"""Files of a container, by the engine's archive calls: paths are resolved inside the container's root."""

import base64
import json
import logging
import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal

import requests

from jobs.engine.container_user import resolve
from jobs.engine.docker.transport.api_client import (
    LONG,
    EngineAnswer,
    EngineConnection,
    is_trouble,
    quoted,
    transport_errors,
    unavailable,
)
from jobs.engine.protocol import Stat, User
from jobs.engine.tar_chunks import ChunkReader
from jobs.errors import EngineRefused, EngineUnavailable, JobError, PathNotFound

logger = logging.getLogger(__name__)

_CHUNK: Final = 64 * 1024
_LONGEST_DATABASE = 4 * 1024**2  # of an /etc/passwd or /etc/group
_LINK_HOPS = 16

# Bits of Go's os.FileMode (the engine's JSON has these, not stat(2)'s).
_DIRECTORY, _SYMLINK = 1 << 31, 1 << 27
_SPECIAL = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19  # device, pipe, socket, character device, irregular

_IN_THE_WAY = ("not a directory", "overwrite", "too many links", "too many levels of symbolic links")

_ADDED = 1  # a kind in `GET /containers/<name>/changes`


class ContainerFiles:
    """The files of one engine's containers."""

    def __init__(self, connection: EngineConnection) -> None:
        self._connection = connection

    def stat(self, name: str, path: str) -> Stat | None:
        """See `Engine.stat`."""
        found = self._stat(name, path)
        return None if found is None else Stat(size=int(found["size"]), kind=_kind(int(found["mode"])))

    def added_directories(self, name: str, paths: Iterable[str]) -> set[str]:
        """See `Engine.added_directories`."""
        changes = self._connection.call("GET", f"/containers/{quoted(name)}/changes") or []
        added = {change["Path"] for change in changes if change["Kind"] == _ADDED}
        return added.intersection(paths)

    def put(self, name: str, directory: str, tar: Iterable[bytes]) -> None:
        """See `Engine.put`."""
        if self._stat(name, directory) is None:  # before the first byte: the engine's own no may be lost in its hanging up
            raise PathNotFound(f"there is no directory {directory}")
        params = {"path": directory, "noOverwriteDirNonDir": "1"}
        answer = self._connection.upload(_archive(name), params=params, chunks=tar)
        if not answer.failed:
            return
        if _is_about_path(answer):
            logger.warning("the engine took no file: %s", answer.message, extra={"container": name})
            raise EngineRefused(_refusal(answer.message))  # what was in the tar, or where it should go
        raise _path_error(answer)

    @contextmanager
    def get(self, name: str, path: str) -> Iterator[Iterator[bytes]]:
        """See `Engine.get`."""
        with self._connection.stream("GET", _archive(name), params={"path": path}, timeout=LONG) as response:
            if isinstance(response, EngineAnswer):
                raise _path_error(response)
            yield _chunks(response)

    def resolve_user(self, name: str, user: str) -> User:
        """The numeric user of `user`, as the image has it, in that container."""
        return resolve(user, lambda path: self._read_text(name, path))

    def _stat(self, name: str, path: str) -> Mapping[str, Any] | None:
        status, headers = self._connection.head(_archive(name), params={"path": path})
        if status >= 400:
            self._check_that_absent(name, path)
            return None
        try:
            found = json.loads(base64.b64decode(headers["X-Docker-Container-Path-Stat"]))
        except (KeyError, ValueError) as error:
            raise EngineUnavailable("the engine's answer cannot be read") from error
        return dict(found)

    def _check_that_absent(self, name: str, path: str) -> None:
        """Raise what else may be wrong than that there is no such path: an answer to HEAD has no body to say so."""
        with suppress(PathNotFound), self.get(name, path):
            raise EngineUnavailable(f"the engine says nothing of {path}")

    def real_path(self, name: str, path: str) -> str:
        """See `Engine.real_path`."""
        real, rest, hops = "/", path, 0
        while rest:
            component, _, rest = rest.lstrip("/").partition("/")
            if not component:
                continue
            step = posixpath.normpath(posixpath.join(real, component))
            found = self._stat(name, step)
            if found and int(found["mode"]) & _SYMLINK and hops < _LINK_HOPS:
                real, rest, hops = "/", f"{posixpath.join(real, found['linkTarget'])}/{rest}", hops + 1
            else:
                real = step
        return real

    def _read_text(self, name: str, path: str) -> str:
        """A small file of the container, empty where there is none. Follows symlinks inside the container."""
        for _ in range(_LINK_HOPS):
            try:
                with self.get(name, path) as chunks, tarfile.open(fileobj=ChunkReader(chunks), mode="r|") as archive:
                    member = archive.next()
                    if member is None or not (member.issym() or member.isreg()):
                        return ""
                    if member.isreg():
                        content = archive.extractfile(member)
                        return content.read(_LONGEST_DATABASE).decode(errors="replace") if content else ""
                    path = posixpath.join(posixpath.dirname(path), member.linkname)
            except (PathNotFound, EngineRefused, tarfile.TarError):
                return ""
        return ""


def _chunks(response: requests.Response) -> Iterator[bytes]:
    try:
        yield from response.raw.stream(_CHUNK, decode_content=False)
    except transport_errors() as error:
        raise unavailable(error) from error


def _archive(name: str) -> str:
    return f"/containers/{quoted(name)}/archive"


def _kind(mode: int) -> Literal["file", "directory", "symlink", "other"]:
    if mode & _DIRECTORY:
        return "directory"
    if mode & _SYMLINK:
        return "symlink"
    return "other" if mode & _SPECIAL else "file"


def _refusal(message: str) -> str:
    """A sentence for what the engine said as it did not unpack an archive: its words name paths of its host."""
    if _is_in_the_way(message):
        return "a directory or something else is in the way"
    return "the engine could not unpack it; the service's log has the details"


def _is_in_the_way(message: str) -> bool:
    return any(words in message for words in _IN_THE_WAY)


def _is_about_path(answer: EngineAnswer) -> bool:
    """Whether a failed archive call is due to the path or the archive.

    The known words for that are looked for first, since a job's paths may have the words of an engine in trouble in them.
    """
    return answer.status >= 500 and (_is_in_the_way(answer.message) or not is_trouble(answer.message))


def _path_error(answer: EngineAnswer) -> JobError:
    """What a failed archive call means. A file for a directory on the way, or a circle of symlinks, is answered with 500."""
    if answer.status == 404:
        gone = answer.message.startswith("No such container")
        return answer.error() if gone else PathNotFound("there is no such path")
    if _is_about_path(answer):
        return PathNotFound("there is no such path: a file stands for a directory, or links lead in a circle")
    return answer.error()
