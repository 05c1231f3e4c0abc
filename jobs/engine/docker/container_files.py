"""Files of a container, through the engine's archive calls: paths are resolved inside the container's root."""

import base64
import copy
import json
import logging
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal

import requests

from jobs.engine.answer_stream import ANSWER_UNREADABLE
from jobs.engine.container_user import resolve
from jobs.engine.docker.transport import (
    TRANSPORT_ERRORS,
    EngineAnswer,
    EngineClient,
    engine_unavailable,
    is_engine_trouble,
    quoted,
)
from jobs.engine.protocol import Stat, User
from jobs.engine.tar_chunks import ArchiveTooShort, ChunkReader, read_entry
from jobs.errors import EngineRefused, EngineUnavailable, JobError, PathNotFound

logger = logging.getLogger(__name__)

_CHUNK_BYTES: Final = 256 * 1024
_MAX_DATABASE_BYTES: Final = 4 * 1024**2  # read of an /etc/passwd or /etc/group
_MAX_LINK_HOPS: Final = 16
_MAX_LOOKUPS: Final = 1024  # of the components of one path, which is as many as one without links can have
_NO_NAMES: Final = ("", ".", "..")  # components that need no lookup
_MAX_USERS: Final = 1000  # that are remembered

# Bits of Go's os.FileMode, which the engine's JSON has in place of stat(2)'s.
_DIRECTORY, _SYMLINK = 1 << 31, 1 << 27
_SPECIAL = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19  # device, pipe, socket, character device, irregular

_PATH_IS_BLOCKED: Final = ("not a directory", "overwrite", "too many links", "too many levels of symbolic links")

_ADDED: Final = 1  # a kind of change in `GET /containers/<name>/changes`


class _PathUnclear(PathNotFound):
    """The engine failed at the path, in words that may mean something else."""


class ContainerFiles:
    """The files of one engine's containers."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client
        self._users: dict[tuple[str, str], User] = {}  # by the image's id and its `user`

    def using(self, client: EngineClient) -> "ContainerFiles":
        """Return the same files, requested through another client."""
        files = copy.copy(self)
        files._client = client
        return files

    def stat(self, name: str, path: str) -> Stat | None:
        """See `Engine.stat`."""
        found = self._stat(name, path)
        return None if found is None else Stat(size=int(found["size"]), kind=_kind(int(found["mode"])))

    def added_directories(self, name: str, paths: Iterable[str]) -> set[str]:
        """See `Engine.added_directories`."""
        changes = self._client.call("GET", f"/containers/{quoted(name)}/changes") or []
        added = {change["Path"] for change in changes if change["Kind"] == _ADDED}
        return added.intersection(paths)

    def put(self, name: str, directory: str, tar: Iterable[bytes]) -> None:
        """See `Engine.put`."""
        # Check before the first byte is sent: the engine may close the connection before its own error has been read.
        if self._stat(name, directory) is None:
            raise PathNotFound(f"there is no directory {directory}")
        params = {"path": directory, "noOverwriteDirNonDir": "1"}
        answer = self._client.upload(_archive(name), params=params, chunks=tar)
        if not answer.failed:
            return
        if _is_about_path(answer):  # or about the archive
            logger.warning("the engine did not unpack an archive: %s", answer.message, extra={"container": name})
            raise EngineRefused(_refusal(answer.message))
        raise _path_error(answer)

    @contextmanager
    def get(self, name: str, path: str) -> Iterator[Iterator[bytes]]:
        """See `Engine.get`."""
        with self._client.stream(
            "GET", _archive(name), params={"path": _as_bytes(path)}, timeout=self._client.intervals.long_call
        ) as response:
            if isinstance(response, EngineAnswer):
                raise _path_error(response)
            yield _chunks(response)

    def resolve_user(self, name: str, user: str, image_id: str, *, changed: bool) -> User:
        """Return the numeric user for the image's `user` in a container.

        It is the same in all containers of an image, unless `changed` says that a process may have written to their files. It is
        not remembered if a file could not be read, since the reason may have been the engine's and temporary.
        """
        known = self._users.get((image_id, user))
        if known is not None:
            return known
        unread = []

        def read(path: str) -> str:
            text = self._read_text(name, path)
            if text is None:
                unread.append(path)
            return text or ""

        resolved = resolve(user, read)
        if not changed and not unread:
            if len(self._users) >= _MAX_USERS:
                self._users.clear()
            self._users[image_id, user] = resolved
        return resolved

    def _stat(self, name: str, path: str) -> Mapping[str, Any] | None:
        status, headers = self._client.head(_archive(name), params={"path": path})
        if status >= 400:
            self._check_that_absent(name, path)
            return None
        try:
            found = json.loads(base64.b64decode(headers["X-Docker-Container-Path-Stat"]))
        except (KeyError, ValueError) as error:
            raise EngineUnavailable(ANSWER_UNREADABLE) from error
        return dict(found)

    def _check_that_absent(self, name: str, path: str) -> None:
        """Raise what GET raises unless the path does not exist: a failed answer to HEAD has no body with the reason."""
        with suppress(PathNotFound), self.get(name, path):
            raise EngineUnavailable(f"the engine has {path} but does not describe it")

    def real_path(self, name: str, path: str) -> str:
        """See `Engine.real_path`."""
        real, rest, hops, lookups = "/", path, 0, 0
        while rest:
            component, _, rest = rest.lstrip("/").partition("/")
            step = posixpath.normpath(posixpath.join(real, component))
            if component in _NO_NAMES:
                real = step
                continue
            lookups += 1
            if lookups > _MAX_LOOKUPS:
                return posixpath.normpath(posixpath.join(step, rest))
            found = self._stat(name, step)
            if found and int(found["mode"]) & _SYMLINK and hops < _MAX_LINK_HOPS:
                real, rest, hops = "/", f"{posixpath.join(real, found['linkTarget'])}/{rest}", hops + 1
            else:
                real = step
        return real

    def _read_text(self, name: str, path: str) -> str | None:
        """Return the text of a small file, empty if it does not exist, None if it cannot be read.

        Symbolic links are followed inside the container.
        """
        for _ in range(_MAX_LINK_HOPS):
            try:
                with self.get(name, path) as chunks:
                    content = ChunkReader(chunks)
                    entry = read_entry(content)
                    if entry.isreg():
                        text = bytearray(min(entry.size, _MAX_DATABASE_BYTES))
                        return text.decode(errors="replace") if content.readinto(text) == len(text) else None
            except (_PathUnclear, EngineRefused, ArchiveTooShort):
                return None
            except PathNotFound:
                return ""
            if not entry.issym():
                return ""
            path = posixpath.join(posixpath.dirname(path), entry.linkname)
        return ""


def _chunks(response: requests.Response) -> Iterator[bytes]:
    try:
        # Not `raw.stream`, which yields the engine's own small chunks.
        while data := response.raw.read(_CHUNK_BYTES, decode_content=False):
            yield data
    except TRANSPORT_ERRORS as error:
        raise engine_unavailable(error) from error


def _archive(name: str) -> str:
    return f"/containers/{quoted(name)}/archive"


def _as_bytes(path: str) -> bytes:
    """Return a path as the engine has it: the target of a link in an image need not be UTF-8."""
    return path.encode("utf-8", "surrogateescape")


def _kind(mode: int) -> Literal["file", "directory", "symlink", "other"]:
    if mode & _DIRECTORY:
        return "directory"
    if mode & _SYMLINK:
        return "symlink"
    return "other" if mode & _SPECIAL else "file"


def _refusal(message: str) -> str:
    """Return a sentence for the client: the engine's message may contain paths of its host."""
    if _is_blocked(message):
        return "a directory or something else is in the way"
    return "the engine could not unpack it; the service's log has the details"


def _is_blocked(message: str) -> bool:
    return any(words in message for words in _PATH_IS_BLOCKED)


def _is_about_path(answer: EngineAnswer) -> bool:
    """Return whether an archive call failed because of the path or the archive.

    The known words for that are checked first, since a job's paths may contain the words of an engine in trouble.
    """
    return answer.status >= 500 and (_is_blocked(answer.message) or not is_engine_trouble(answer.message))


def _path_error(answer: EngineAnswer) -> JobError:
    """Return what a failed archive call means. The engine answers 500 if a parent is a file, or links form a cycle."""
    if answer.status == 404:
        gone = answer.message.startswith("No such container")
        return answer.error() if gone else PathNotFound("there is no such path")
    if _is_about_path(answer):
        return _PathUnclear("there is no such path: a parent is not a directory, or symbolic links form a cycle")
    return answer.error()
