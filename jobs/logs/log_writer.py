"""Writes a job's log into the database: lines, cursor and `log` events in one transaction."""

import time
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Final

from django.db.models import Q

from jobs.engine.protocol import Frames, LogPosition, StreamName
from jobs.lifecycle import Claim, changed
from jobs.log_lines import MAX_EVENT_BYTES, Batch, Cursor, Ending, Line, LineSplitter
from jobs.logs.backpressure import Backlog
from jobs.logs.rotation_detector import FrameKind, RotationDetector
from jobs.models import Job, LogChunk
from orchestrator_site.base.db.statements import insert_rows
from orchestrator_site.base.intervals import LogIntervals

# Of what is stored as one row. Each response that a client reads slowly keeps the text of a row in memory.
_MAX_CHUNK_LINES: Final = 5000
_MAX_CHUNK_BYTES: Final = 8 * MAX_EVENT_BYTES
_CHUNK: Final = ("job", "first", "count", "lines", "unended")
_GAP: Final = "[lines may be missing here: the log outgrew ENGINE_LOG_LIMIT and the engine rotated it]"
_GAP_ON_CLUSTER: Final = "[lines may be missing here: the node rotated the log]"
_UNREADABLE: Final = "[lines may be missing here: the engine cannot read the rest of its log]"


class LogWriter:
    """A writer that splits frames into lines and commits these in batches, continuing at the job's committed cursor."""

    def __init__(
        self, claim: Claim, job: Job, *, log_limit: int, engine_log_limit: int | None, intervals: LogIntervals = LogIntervals()
    ) -> None:
        """Start at the cursor in `job`. `log_limit` (LOG_LIMIT) and `engine_log_limit` (ENGINE_LOG_LIMIT) are in bytes.

        With an engine that finds log positions, `engine_log_limit` is None: it repeats nothing, and says itself where frames may
        be missing.
        """
        self._claim = claim
        self._log_limit = log_limit
        self._splitter = LineSplitter(
            Cursor(
                frames=job.log_frames,
                stdout=bytes(job.log_tail_stdout),
                stderr=bytes(job.log_tail_stderr),
                stdout_time=job.log_tail_stdout_time,
                stderr_time=job.log_tail_stderr_time,
            ),
            intervals,
        )
        self._gaps = 0  # since the last commit
        self._gap_marker = _GAP if engine_log_limit is not None else _GAP_ON_CLUSTER
        self._position = LogPosition(job.log_last_stdout, job.log_last_count)
        self.rotation = RotationDetector(
            {"stdout": job.log_last_stdout, "stderr": job.log_last_stderr},
            engine_bytes=job.log_engine_bytes,
            first_file_bytes=float("inf") if engine_log_limit is None else engine_log_limit // 2,
        )
        # An earlier owner may have left the backlog full.
        self.backlog = Backlog(claim.uuid, may_be_full=job.wants_logs and job.log_frames > 0)
        self.backlog.is_log_full = job.log_full
        self.wants_more = job.wants_logs or not job.log_full

    @property
    def frames(self) -> int:
        """How many frames of the log are stored, or will be by the next commit."""
        return self._splitter.frames

    @property
    def position(self) -> LogPosition:
        """The place behind these frames, for an engine that finds log positions."""
        return self._position

    @property
    def can_resume_anywhere(self) -> bool:
        """Whether the next frames can be read without those before: no line is unfinished, and no file was rotated."""
        return self._splitter.is_between_lines and not self.rotation.may_have_rotated

    def write(self, frames: Frames | None) -> bool:
        """Take the next frames, or None when none came for a while; return whether more are wanted.

        Lines are committed when their batch is due or `frames` is None. Raise `OwnershipLost`.
        """
        if frames is not None:
            self._add(frames)
        if frames is None or self._splitter.due(time.monotonic()):
            self._commit(self._splitter.take())
        return self.wants_more

    def finish(self, *, unreadable: bool = False) -> None:
        """Commit the rest, including unfinished lines. `unreadable` says that the engine has more but cannot read it.

        Raise `OwnershipLost`.
        """
        self._splitter.finish()
        self._commit(self._splitter.take(), unreadable=unreadable, is_last=True)

    def _add(self, frames: Frames) -> None:
        if frames.after_gap:
            self._break_off(frames.stream)
            self._gaps += 1
            if not len(frames):
                return
        self._position = self._position.moved(frames.times)
        if self.rotation.accept_all(frames):
            self._splitter.feed(frames)
            return
        for number, frame in enumerate(frames):
            kind = self.rotation.classify(frame)
            if kind is FrameKind.NEW_AFTER_GAP:
                self._break_off(frame.stream)
            if kind in (FrameKind.NEW_AFTER_GAP, FrameKind.REPEATED_AFTER_GAP):
                self._gaps += 1
            if kind in (FrameKind.NEW, FrameKind.NEW_AFTER_GAP):
                self.rotation.accept(frame)
                self._splitter.feed(frames.part(number, number + 1))

    def _marker_of_gap(self, following: Sequence[Line]) -> Line:
        return _marker(following[0] if following else Line("stdout", self._position.time, ""), self._gap_marker)

    def _break_off(self, stream: StreamName) -> None:
        """End the unfinished line of a stream, and commit it: the marker of the gap belongs after it."""
        self._splitter.break_off(stream)
        self._commit(self._splitter.take())

    def _commit(self, batch: Batch, *, unreadable: bool = False, is_last: bool = False) -> None:
        if not batch.lines and not unreadable and not (is_last and self._gaps):
            return
        values = {
            "log_frames": batch.cursor.frames,
            "log_tail_stdout": batch.cursor.stdout,
            "log_tail_stderr": batch.cursor.stderr,
            "log_tail_stdout_time": batch.cursor.stdout_time,
            "log_tail_stderr_time": batch.cursor.stderr_time,
            "log_last_stdout": self.rotation.last_times["stdout"],
            "log_last_stderr": self.rotation.last_times["stderr"],
            "log_engine_bytes": self.rotation.engine_bytes,
            "log_last_count": self._position.frames,
            "owner_deaths": 0,  # this owner got further than those that died
        }
        with changed(self._claim.uuid, self._claim.guard & Q(exited_at=None), **values) as job:
            lines = (self._marker_of_gap(batch.lines), *batch.lines) if self._gaps else batch.lines
            kept = 0 if job.log_full else _store(job, lines, self._log_limit)
            job.log_dropped += self._gaps
            if job.wants_logs:
                self.backlog.publish(job, batch.lines, max(0, kept - (len(lines) - len(batch.lines))))
            if unreadable:
                _end_unreadable(job, self._log_limit)
            job.save(update_fields=["log_bytes", "log_next", "log_full", "log_dropped"])
        self._gaps = 0
        self._splitter.is_patient = self.backlog.is_long
        self.wants_more = job.wants_logs or not job.log_full


def _store(job: Job, lines: Sequence[Line], limit: int) -> int:
    """Store the lines that fit into `limit` bytes; the first one that does not is replaced by a marker, and ends the log.

    Return how many fit.
    """
    ends = list(accumulate((len(line.text.encode()) + 1 for line in lines), initial=job.log_bytes))
    fitting = max(0, bisect_right(ends, limit) - 1)
    kept = list(lines[:fitting])
    job.log_bytes = ends[fitting]
    if fitting < len(lines):
        job.log_full = True
        kept.append(_marker(lines[fitting], f"[the stored log ends here: it reached the limit of {limit} bytes]"))
    chunks = []
    start = 0
    while start < len(kept):
        within_bytes = bisect_right(ends, ends[start] + _MAX_CHUNK_BYTES) - 1
        part = kept[start : min(within_bytes, start + _MAX_CHUNK_LINES)]
        start += len(part)
        rows = [(line.stream, line.time, line.text) for line in part]
        unended = [[index, line.ending] for index, line in enumerate(part) if line.ending != Ending.LINE_FEED]
        chunks.append(LogChunk(job=job, first=job.log_next, count=len(part), lines=rows, unended=unended or None))
        job.log_next += len(part)
    insert_rows(LogChunk, chunks, _CHUNK, large=True)
    return fitting


def _end_unreadable(job: Job, limit: int) -> None:
    """Store a marker for what the engine cannot read, unless an earlier owner stored it before it died."""
    last = LogChunk.objects.filter(job=job).last()
    if job.log_full or (last is not None and last.lines[-1][2] == _UNREADABLE):
        return
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    _store(job, [Line("stderr", now, _UNREADABLE, Ending.MARKER)], limit)
    job.log_dropped += 1


def _marker(line: Line, text: str) -> Line:
    """Return a line of the service's own with the stream and time of `line`."""
    return line._replace(text=text, ending=Ending.MARKER)
