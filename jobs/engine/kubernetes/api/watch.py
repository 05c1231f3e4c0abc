"""Keeps the Jobs and pods of a namespace up to date by two watches, whatever happens to the connection."""

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from jobs.engine.answer_stream import ByteStream
from jobs.engine.kubernetes.api.cluster_client import Answer, ClusterClient
from jobs.engine.kubernetes.api.cluster_objects import ClusterObjects, Object
from jobs.engine.kubernetes.names import NAME_LABEL
from jobs.errors import EngineSilent, EngineUnavailable, Interrupted, JobError
from jobs.interrupt import Interrupt

logger = logging.getLogger(__name__)

_GONE: Final = 410
_PAGE: Final = 500  # objects of one answer to a list
_MAX_LINE_BYTES: Final = 16 * 1024**2
_NO_KEY: Final = ""  # no Job has this name: who waits for it is woken only together with all others
_ENDED: Final = "the engine is closed"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of objects, and what to do with what the cluster reports about them."""

    name: str
    path: str
    put: Callable[[Object], None]
    deleted: Callable[[Object], None]
    only: Callable[[Iterable[Object], int], None]


class _Expired(Exception):
    """The cluster no longer knows what has happened since the version that we have."""


class Watch:
    """One watch in a thread of its own. It begins with the first call of `require`, and lasts until `close`."""

    def __init__(self, kind: Kind, client: ClusterClient, objects: ClusterObjects) -> None:
        self._kind = kind
        self._interrupt = Interrupt()
        self._client = client.bound(self._interrupt)
        self._objects = objects
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._version = ""
        self._tried = threading.Event()
        self._error: JobError | None = EngineUnavailable("the cluster has not been asked yet")

    def require(self, interrupt: Interrupt) -> None:
        """Return if what is known is up to date. Raise `EngineUnavailable` while the watch is cut off."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"watch {self._kind.name}", daemon=True)
                self._thread.start()
        with self._objects.watching(_NO_KEY) as changed, interrupt.waking(changed.set):
            while not self._tried.is_set():
                changed.wait()
                interrupt.check()
        if self._error is not None:
            raise EngineUnavailable(f"the cluster's {self._kind.name} cannot be watched: {self._error}")

    def close(self) -> None:
        """End the watch."""
        self._interrupt.wake()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        pauses = self._pauses()
        while not self._interrupt.is_set:
            try:
                if not self._version:
                    self._list()
                self._follow()
                pauses = self._pauses()
            except _Expired:
                self._version = ""
            except Interrupted:
                break
            except JobError as error:
                self._cut_off(error)
                self._wait(next(pauses))
            except Exception as error:  # an answer that is not as expected: everything is listed again
                logger.exception("the watch of %s has failed", self._kind.name)
                self._version = ""
                self._cut_off(EngineUnavailable(f"an answer cannot be read: {error}"))
                self._wait(next(pauses))
        self._cut_off(EngineUnavailable(_ENDED))

    def _pauses(self) -> Iterator[float]:
        pause = self._client.intervals.cluster_watch_retry
        while True:
            yield pause
            pause = min(2 * pause, self._client.intervals.cluster_watch_retry_max)

    def _wait(self, seconds: float) -> None:
        try:
            self._interrupt.sleep(seconds)
        except Interrupted:
            return

    def _list(self) -> None:
        found: list[Object] = []
        params = {"labelSelector": NAME_LABEL, "limit": str(_PAGE)}
        while True:
            page = self._client.call("GET", self._kind.path, params=params)
            found += page["items"]
            if not page["metadata"].get("continue"):
                break
            params["continue"] = page["metadata"]["continue"]
        self._version = page["metadata"]["resourceVersion"]
        self._kind.only([_trimmed(one) for one in found], int(self._version))

    def _follow(self) -> None:
        """Record what happens until the API server ends the watch, which it does every few minutes."""
        intervals = self._client.intervals
        params = {
            "watch": "1",
            "allowWatchBookmarks": "1",
            "labelSelector": NAME_LABEL,
            "resourceVersion": self._version,
            "timeoutSeconds": str(int(intervals.cluster_watch)),
        }
        with self._client.stream(self._kind.path, params=params) as answer:
            if isinstance(answer, Answer):
                raise _Expired if answer.status == _GONE else answer.error()
            self._connected()
            stream = ByteStream(answer, self._interrupt, intervals)
            lines = stream.lines(_MAX_LINE_BYTES)
            while stream.ready(intervals.cluster_watch_silence):
                line = next(lines, None)
                if line is None:
                    return
                self._record(json.loads(line))
            raise EngineSilent("the API server sends nothing")

    def _record(self, event: Mapping[str, Any]) -> None:
        found = event["object"]
        match event["type"]:
            case "ADDED" | "MODIFIED":
                self._kind.put(_trimmed(found))
            case "DELETED":
                self._kind.deleted(_trimmed(found))
            case "ERROR":
                raise _Expired if found.get("code") == _GONE else EngineUnavailable(str(found.get("message")))
        self._version = found["metadata"]["resourceVersion"]

    def _connected(self) -> None:
        if self._error is not None:
            logger.info("watching %s", self._kind.name)
        self._error = None
        self._tried.set()
        self._objects.wake_all()

    def _cut_off(self, error: JobError) -> None:
        self._error = error
        self._tried.set()
        self._objects.wake_all()


def _trimmed(found: Object) -> Object:
    """Return an object without the part that is not read, which is half of it."""
    metadata = {name: value for name, value in found["metadata"].items() if name != "managedFields"}
    return {**found, "metadata": metadata}
