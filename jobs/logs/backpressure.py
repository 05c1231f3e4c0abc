"""Back-pressure: a log is read no faster than the job's callback accepts events."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from jobs import events
from jobs.log_lines import Line, group
from jobs.models import Job
from orchestrator_site.base.db.transactions import short_read

MAX_UNDELIVERED: Final = 200  # events of one job, each of at most 64 KiB


class Backlog:
    """The undelivered events of one job."""

    def __init__(self, job: UUID, *, may_be_full: bool) -> None:
        """Let the first `is_full` query the database only if `may_be_full`."""
        self.may_drop = False  # whether lines that do not fit are dropped
        self._job = job
        self._may_be_full = may_be_full

    def is_full(self) -> bool:
        """Return whether the callback is so far behind that the log should not be read on.

        Query the database only if the backlog was full when it was last looked at.
        """
        if self._may_be_full:
            with short_read():
                self._may_be_full = events.undelivered(self._job, MAX_UNDELIVERED) >= MAX_UNDELIVERED
        return self._may_be_full

    def publish(self, job: Job, lines: Sequence[Line]) -> None:
        """Publish lines as `log` events in the caller's transaction. `job` is the locked row; the caller saves it.

        Without `may_drop` all are published: the reader waits when the backlog is full. Otherwise the lines that do not fit
        into it are added to `job.log_dropped`. The next `log` event, or else the `exit` event, reports that number.
        """
        undelivered = events.undelivered(self._job, MAX_UNDELIVERED)
        groups = group(lines)
        space = max(0, MAX_UNDELIVERED - undelivered) if self.may_drop else len(groups)
        sent, dropped = groups[:space], groups[space:]
        events.logged(job, sent)
        if sent:
            job.log_dropped = 0
        job.log_dropped += sum(map(len, dropped))
        self._may_be_full = undelivered + len(sent) >= MAX_UNDELIVERED
