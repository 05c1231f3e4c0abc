"""Watches the logs that clients follow: one query for all of them, and no thread for any."""

import logging
import threading
import time
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from jobs.api import stored_log
from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE, release_connection
from orchestrator_site.base.http.pauses import Pause
from orchestrator_site.base.intervals import WebIntervals
from orchestrator_site.base.stopping import stopping

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Follower:
    job: UUID
    position: int  # number of the last line that it knows of
    deadline: float
    pause: Pause

    def has_news(self, logs: dict[UUID, stored_log.Log]) -> bool:
        log = logs.get(self.job)
        return log is None or log.ended or log.end > self.position


class LogWatch:
    """Ends pauses when there is more to read. It has a thread only while a client waits."""

    def __init__(self, intervals: WebIntervals = WebIntervals()) -> None:
        self._intervals = intervals
        self._lock = threading.Lock()
        self._followers: list[_Follower] = []
        self._is_running = False

    def wait(self, pause: Pause, *, job: UUID, position: int, deadline: float) -> None:
        """End `pause` when the log of the job has a line after `position`, has ended or was deleted, or at `deadline`."""
        with self._lock:
            self._followers.append(_Follower(job, position, deadline, pause))
            if not self._is_running:
                threading.Thread(target=self._run, name="log-watch", daemon=True).start()
                self._is_running = True

    def _run(self) -> None:
        interval = self._intervals.follow
        while not stopping.wait(interval):
            with self._lock:
                followers, self._followers = self._followers, []
                if not followers:
                    self._is_running = False
                    return
            interval = self._look(followers)

    def _look(self, followers: list[_Follower]) -> float:
        """End the pauses that are over, keep the others; return how long to wait before the next look."""
        interval, logs = self._intervals.follow, None
        try:
            logs = stored_log.find_logs({follower.job for follower in followers})
        except DATABASE_UNAVAILABLE:
            interval = self._intervals.retry_unavailable
        except Exception:  # without this thread no follower would hear of anything
            logger.exception("looking for new lines of logs failed")
            interval = self._intervals.retry_unavailable
        finally:
            release_connection()
        now = time.monotonic()
        over = [follower.deadline <= now or (logs is not None and follower.has_news(logs)) for follower in followers]
        with self._lock:
            self._followers += [follower for follower, is_over in zip(followers, over, strict=True) if not is_over]
        for follower, is_over in zip(followers, over, strict=True):
            if is_over:
                follower.pause.end()
        return interval


log_watch: Final = LogWatch()
