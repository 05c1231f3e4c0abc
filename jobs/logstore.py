"""A job's log on its way into the database: lines, cursor and `log` events in one transaction."""

import time
from collections.abc import Sequence

from django.db.models import Q

from jobs import events
from jobs.engine.base import Frame
from jobs.lifecycle import Claim, changed
from jobs.logs import Batch, Cursor, Line, LineSplitter, group
from jobs.models import Job, LogChunk

_CHUNK_LINES = 5000  # of a batch that is stored as one row


class Reader:
    """Takes frames, commits batches. Starts at the job's committed cursor."""

    def __init__(self, claim: Claim, job: Job, limit: int) -> None:
        self._claim = claim
        self._limit = limit
        self._splitter = LineSplitter(
            Cursor(
                frames=job.log_frames,
                stdout=bytes(job.log_tail_stdout),
                stderr=bytes(job.log_tail_stderr),
                stdout_time=job.log_tail_stdout_time,
                stderr_time=job.log_tail_stderr_time,
            )
        )
        self.frames = job.log_frames  # how many to skip
        self.reads = job.wants_logs or not job.log_full  # False: nobody wants the rest

    def take(self, frame: Frame | None) -> bool:
        """One frame, or None where the log is quiet. False: nobody wants the rest."""
        if frame is not None:
            self._splitter.feed(frame)
        if frame is None or self._splitter.due(time.monotonic()):
            self._commit(self._splitter.take())
        return self.reads

    def finish(self) -> None:
        """The log has ended: what is unfinished is its last lines."""
        self._splitter.finish()
        self._commit(self._splitter.take())

    def _commit(self, batch: Batch) -> None:
        if not batch.lines:
            return
        cursor = {
            "log_frames": batch.cursor.frames,
            "log_tail_stdout": batch.cursor.stdout,
            "log_tail_stderr": batch.cursor.stderr,
            "log_tail_stdout_time": batch.cursor.stdout_time,
            "log_tail_stderr_time": batch.cursor.stderr_time,
        }
        with changed(self._claim.uuid, self._claim.guard & Q(exited_at=None), **cursor) as job:
            if not job.log_full:
                _store(job, batch.lines, self._limit)
            if job.wants_logs:
                for stream, texts in group(batch.lines):
                    events.logged(job, stream, texts)
        self.reads = job.wants_logs or not job.log_full


def _store(job: Job, lines: Sequence[Line], limit: int) -> None:
    """Store what fits under LOG_LIMIT; the first line that does not is replaced by a marker, and is the last."""
    kept: list[list[str]] = []
    for line in lines:
        size = len(line.text.encode()) + 1
        if job.log_bytes + size > limit:
            job.log_full = True
            kept.append([line.stream, line.time, f"[the stored log ends here: it reached the limit of {limit} bytes]"])
            break
        job.log_bytes += size
        kept.append([line.stream, line.time, line.text])
    for start in range(0, len(kept), _CHUNK_LINES):
        part = kept[start : start + _CHUNK_LINES]
        LogChunk.objects.create(job=job, first=job.log_next, count=len(part), lines=part)
        job.log_next += len(part)
    job.save(update_fields=["log_bytes", "log_next", "log_full"])
