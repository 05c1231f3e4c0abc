"""Requests for the log of a pod's container."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from jobs.engine.answer_stream import ByteStream
from jobs.engine.kubernetes.api.cluster_client import Answer, ClusterClient
from jobs.engine.kubernetes.logs.log_frames import TIME_BYTES, LogDecoder, LogNotSent, time_at_start
from jobs.engine.kubernetes.names import CONTAINER
from jobs.engine.protocol import Frame
from jobs.errors import EngineRefused, JobError
from orchestrator_site.base.intervals import EngineIntervals

_NOT_STARTED: Final = "is waiting to start"  # the API has no other sign of it
_NO_RECORD: Final = "unable to retrieve container logs"  # while a node's container runtime restarts, or if it has lost its record


class LogRequests:
    """The requests for the log of one pod. They raise `EngineUnavailable`, `EngineRefused` and `Interrupted`."""

    def __init__(self, client: ClusterClient, pod: str, *, is_final: bool) -> None:
        """With `is_final` the process has ended, and there will be no more."""
        self.is_final = is_final
        self._client = client
        self._pod = pod
        self._path = client.core("pods", pod, "log")

    @property
    def intervals(self) -> EngineIntervals:
        return self._client.intervals

    @contextmanager
    def open(self, params: Mapping[str, str], *, follow: bool = False) -> Iterator[ByteStream | None]:
        """Open the log in the file that the node writes now; None if the container has not started.

        A node answers to the reader of a silent container only when that prints something.
        """
        params = {"container": CONTAINER, "timestamps": "true", **params, **({"follow": "true"} if follow else {})}
        with self._client.stream(self._path, params=params, may_be_silent=follow) as answer:
            if not isinstance(answer, Answer):
                yield ByteStream(answer, self._client.interrupt, self._client.intervals)
            elif answer.status == 400 and _NOT_STARTED in answer.message:
                yield None
            else:
                raise self._error(answer)

    def first_time(self) -> str:
        """Return the time of the first line in the node's current file; empty if that has none."""
        return time_at_start(self._read(limitBytes=str(TIME_BYTES)))

    def last_frames(self) -> list[Frame]:
        """Return the frames of the last two entries: lines, or pieces of 16 KiB of longer ones, each with a time of its own."""
        decoder = LogDecoder()
        decoded = decoder.decode(self._read(tailLines="2")), decoder.finish()
        return [frame for frames in decoded if frames is not None for frame in frames]

    def pause(self) -> None:
        """Wait before the same requests are sent again."""
        self._client.interrupt.sleep(self.intervals.cluster_log_retry)

    def _error(self, answer: Answer) -> JobError:
        if answer.status == 404 and answer.message == f'pods "{self._pod}" not found':
            return EngineRefused("the pod does not exist any more, and its log with it")
        if answer.status == 404 or (answer.status == 400 and _NO_RECORD in answer.message):
            return LogNotSent(f"the node does not know the container: {answer.message}")  # a kubelet that has just started, say
        return answer.error()

    def _read(self, **params: str) -> bytes:
        """Return a part of the log that is small."""
        with self.open(params) as stream:
            return b"" if stream is None else b"".join(iter(stream.read, b""))
