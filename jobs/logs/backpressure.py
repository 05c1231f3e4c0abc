"""Back-pressure: a log is read no faster than the job's callback accepts events.

A callback that gets as much per second as it may accepts events, but late. Then what is within LOG_LIMIT is read and published
nevertheless, because it must not be lost; that is bounded by LOG_LIMIT, as the stored log is.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from jobs import events
from jobs.log_lines import Line, group
from jobs.models import Job
from orchestrator_site.base.db.transactions import short_read

MAX_UNDELIVERED: Final = 200  # events of one job, each of at most 64 KiB
_MANY: Final = MAX_UNDELIVERED // 2


class Backlog:
    """The undelivered events of one job."""

    def __init__(self, job: UUID, *, may_be_full: bool) -> None:
        """Let the first `is_full` query the database only if `may_be_full`."""
        self.may_drop = False  # whether lines that do not fit are dropped
        self.is_log_full = False  # whether all further lines are past LOG_LIMIT
        self.is_long = False  # whether the callback is far behind: fewer and larger events help it
        self._job = job
        self._may_be_full = may_be_full

    def is_full(self) -> bool:
        """Return whether the callback is so far behind that the log should not be read on.

        Query the database only if the backlog was full when it was last looked at.
        """
        if self._may_be_full:
            with short_read():
                is_full = events.undelivered(self._job, MAX_UNDELIVERED) >= MAX_UNDELIVERED
                self._may_be_full = is_full and (self.is_log_full or not events.is_limited(self._job))
        return self._may_be_full

    def publish(self, job: Job, lines: Sequence[Line], kept: int) -> None:
        """Publish lines as `log` events in the caller's transaction. `job` is the locked row; the caller saves it.

        The first `kept` lines are within LOG_LIMIT. Without `may_drop` all are published: the reader waits when the backlog is
        full. Otherwise the lines that do not fit into it are added to `job.log_dropped`. The next `log` event, or else the `exit`
        event, reports that number.
        """
        undelivered = events.undelivered(self._job, MAX_UNDELIVERED)
        groups = group(lines)
        space = max(0, MAX_UNDELIVERED - undelivered) if self.may_drop else len(groups)
        if space < len(groups) and kept and events.is_limited(self._job):
            must_be_sent = group(lines[:kept])
            groups = [*must_be_sent, *group(lines[kept:])]
            space = max(space, len(must_be_sent))
        sent, dropped = groups[:space], groups[space:]
        events.logged(job, sent)
        if sent:
            job.log_dropped = 0
        job.log_dropped += sum(map(len, dropped))
        self._may_be_full = undelivered + len(sent) >= MAX_UNDELIVERED
        self.is_long = undelivered >= _MANY
        self.is_log_full = job.log_full
