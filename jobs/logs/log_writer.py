"""A job's log on its way into the database: lines, cursor and `log` events in one transaction."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from django.db.models import Q

from jobs import events
from jobs.engine.protocol import Frame, StreamName
from jobs.lifecycle import Claim, changed
from jobs.log_lines import Batch, Cursor, Ending, Line, LineSplitter, group
from jobs.models import Job, LogChunk
from orchestrator_site.base.db.transactions import short_read

BACKLOG: Final = 200  # so many undelivered events of a job, each of at most 64 KiB, and its callback is behind
_CHUNK_LINES: Final = 5000  # of a batch that is stored as one row
_LINE_BYTES: Final = 28  # what the engine writes around a line, measured with Docker's driver `local`
_PIECE_BYTES: Final = 104  # what it writes around a piece of a long one
_GAP: Final = "[lines may be missing here: the log outgrew ENGINE_LOG_LIMIT and the engine rotated it]"
_UNREADABLE: Final = "[lines may be missing here: the engine cannot read the rest of its log]"


class Reader:
    """Takes frames, commits batches. Starts at the job's committed cursor.

    An engine that rotates a log while it is followed loses some of it and repeats some (Docker 20.10: measured). The times
    of a stream's frames never go back, so what was there before is known by its time. They would go back with the
    host's clock, too: so this holds only once the engine's first file is full.
    """

    def __init__(self, claim: Claim, job: Job, limit: int, engine_limit: int) -> None:
        """`limit`: LOG_LIMIT, `engine_limit`: ENGINE_LOG_LIMIT, in bytes."""
        self._claim = claim
        self._limit = limit
        self._first_file = engine_limit // 2
        self._splitter = LineSplitter(
            Cursor(
                frames=job.log_frames,
                stdout=bytes(job.log_tail_stdout),
                stderr=bytes(job.log_tail_stderr),
                stdout_time=job.log_tail_stdout_time,
                stderr_time=job.log_tail_stderr_time,
            )
        )
        self._last: dict[StreamName, str] = {"stdout": job.log_last_stdout, "stderr": job.log_last_stderr}
        self._engine_bytes = job.log_engine_bytes
        self._rotated: set[StreamName] = set()  # streams whose first frame is to come after a rotation
        self._repeating: set[StreamName] = set()
        self._gaps = 0
        self._may_be_behind = job.wants_logs and job.log_frames > 0  # the callback: an earlier owner may have left it so
        self.frames = job.log_frames  # how many are stored
        self.reads = job.wants_logs or not job.log_full  # False: nobody wants the rest

    def is_last(self, frame: Frame | None) -> bool:
        """Whether this is the last frame that is stored: the log is as it was left."""
        return frame is not None and frame.time == self._last[frame.stream]

    def rotated(self) -> None:
        """The log is not as it was left: what follows are the frames that the engine still has, from their start."""
        self._rotated = {"stdout", "stderr"}

    def take(self, frame: Frame | None) -> bool:
        """One frame, or None where the log is quiet. False: nobody wants the rest."""
        if frame is not None and not self._is_repeated(frame):
            self._last[frame.stream] = frame.time
            self._engine_bytes += len(frame.data) + (_LINE_BYTES if frame.data.endswith(b"\n") else _PIECE_BYTES)
            self._splitter.feed(frame)
        if frame is None or self._splitter.due(time.monotonic()):
            self._commit(self._splitter.take())
        return self.reads

    def callback_is_behind(self) -> bool:
        """Whether the job's callback is behind, so that no more is to be read while the process runs.

        Asks the database only where the last commit, or an earlier owner, may have left it so.
        """
        if self._may_be_behind:
            with short_read():
                self._may_be_behind = events.undelivered(self._claim.uuid, BACKLOG) >= BACKLOG
        return self._may_be_behind

    def finish(self, *, unreadable: bool = False) -> None:
        """End the log: what is unfinished is its last lines. `unreadable`: there is more that the engine cannot read."""
        self._splitter.finish()
        self._commit(self._splitter.take(), unreadable=unreadable)

    def _is_repeated(self, frame: Frame) -> bool:
        stream, last = frame.stream, self._last[frame.stream]
        first_after_rotation = stream in self._rotated
        self._rotated.discard(stream)
        if frame.time < last and (first_after_rotation or self._engine_bytes >= self._first_file):
            self._gaps += not first_after_rotation and stream not in self._repeating
            self._repeating.add(stream)
        elif frame.time > last:
            if first_after_rotation and last:
                self._splitter.break_off(stream)
                self._commit(self._splitter.take())  # so that the marker comes behind it
                self._gaps += 1
            self._repeating.discard(stream)
        elif first_after_rotation:
            self._repeating.add(stream)
        return stream in self._repeating

    def _commit(self, batch: Batch, *, unreadable: bool = False) -> None:
        if not batch.lines and not unreadable:
            return
        values = {
            "log_frames": batch.cursor.frames,
            "log_tail_stdout": batch.cursor.stdout,
            "log_tail_stderr": batch.cursor.stderr,
            "log_tail_stdout_time": batch.cursor.stdout_time,
            "log_tail_stderr_time": batch.cursor.stderr_time,
            "log_last_stdout": self._last["stdout"],
            "log_last_stderr": self._last["stderr"],
            "log_engine_bytes": self._engine_bytes,
            "owner_deaths": 0,  # what was read now, no earlier owner had got past
        }
        with changed(self._claim.uuid, self._claim.guard & Q(exited_at=None), **values) as job:
            lines = (_marker(batch.lines[0], _GAP), *batch.lines) if self._gaps and batch.lines else batch.lines
            if not job.log_full:
                _store(job, lines, self._limit)
            job.log_dropped += self._gaps
            self._may_be_behind = job.wants_logs and _tell(job, batch.lines)
            if unreadable:
                _end_unreadable(job, self._limit)
            job.save(update_fields=["log_bytes", "log_next", "log_full", "log_dropped"])
        self._gaps = 0
        self.reads = job.wants_logs or not job.log_full


def _store(job: Job, lines: Sequence[Line], limit: int) -> None:
    """Store what fits under LOG_LIMIT; the first line that does not is replaced by a marker, and is the last."""
    kept: list[Line] = []
    for line in lines:
        size = len(line.text.encode()) + 1
        if job.log_bytes + size > limit:
            job.log_full = True
            kept.append(_marker(line, f"[the stored log ends here: it reached the limit of {limit} bytes]"))
            break
        job.log_bytes += size
        kept.append(line)
    for start in range(0, len(kept), _CHUNK_LINES):
        part = kept[start : start + _CHUNK_LINES]
        rows = [[line.stream, line.time, line.text] for line in part]
        unended = [[index, line.ending] for index, line in enumerate(part) if line.ending != Ending.LINE_FEED]
        LogChunk.objects.create(job=job, first=job.log_next, count=len(part), lines=rows, unended=unended or None)
        job.log_next += len(part)


def _end_unreadable(job: Job, limit: int) -> None:
    """Store a marker that says that more was printed, unless an earlier owner did before it died."""
    last = LogChunk.objects.filter(job=job).last()
    if job.log_full or (last is not None and last.lines[-1][2] == _UNREADABLE):
        return
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    _store(job, [Line("stderr", now, _UNREADABLE, Ending.MARKER)], limit)
    job.log_dropped += 1


def _marker(place: Line, text: str) -> Line:
    """Make a line of the service's own, to stand in the place of that one or before it."""
    return replace(place, text=text, ending=Ending.MARKER)


def _tell(job: Job, lines: Sequence[Line]) -> bool:
    """Publish `log` events; whether the callback is behind now.

    Until the job is decided no line is lost: who reads waits instead. After that nobody waits, and the lines for
    which there is no room are dropped and counted, for the next `log` event that there is room for or else `exit`.
    """
    undelivered = events.undelivered(job.uuid, BACKLOG)
    for part in group(lines):
        if job.decided and undelivered >= BACKLOG:
            job.log_dropped += len(part)
        else:
            events.logged(job, part)
            job.log_dropped = 0
            undelivered += 1
    return undelivered >= BACKLOG
