"""Watches the logs that clients follow: one query for all of them, and no thread for any."""

import logging
import threading
import time
from dataclasses import dataclass
from operator import attrgetter
from typing import Final
from uuid import UUID

from jobs.api import stored_log
from jobs.api.log_events import forget_events
from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE, release_connection
from orchestrator_site.base.http.pauses import Pause
from orchestrator_site.base.intervals import WebIntervals
from orchestrator_site.base.stopping import stopping

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True, eq=False)
class Follower:
    """An answer that has paused until there is more to read."""

    pause: Pause
    job: UUID
    position: int  # number of the last line that it knows of
    deadline: float  # the pause ends then at the latest
    has_news: bool = False  # whether there is more to read, or nothing to wait for
    log: stored_log.Log | None = None  # as it is then; None if the job was deleted
    waits: bool = True  # the answer has not gone on, and the client has not gone

    def look(self, logs: dict[UUID, stored_log.Log]) -> None:
        """Set `has_news` by the present state of the logs."""
        log = self.log = logs.get(self.job)
        self.has_news = log is None or log.ended or log.end > self.position


class LogWatch:
    """Ends pauses when there is more to read. It has a thread only while a client waits."""

    def __init__(self, intervals: WebIntervals = WebIntervals()) -> None:
        self._intervals = intervals
        self._lock = threading.Lock()
        self._followers: list[Follower] = []
        self._is_running = False

    def add(self, follower: Follower) -> None:
        """End the follower's pause when its log has a line after `position`, has ended or was deleted, or at `deadline`."""
        with self._lock:
            self._followers.append(follower)
            if not self._is_running:
                threading.Thread(target=self._run, name="log-watch", daemon=True).start()
                self._is_running = True

    def _run(self) -> None:
        interval = self._intervals.follow
        while not stopping.wait(interval):
            with self._lock:
                followers, self._followers = [follower for follower in self._followers if follower.waits], []
                if not followers:
                    self._is_running = False  # before another is added
                    forget_events()
                    return
            interval = self._look(followers)
        with self._lock:
            self._is_running = False  # the web server ends the answers of a process that stops

    def _look(self, followers: list[Follower]) -> float:
        """End the pauses that are over, keep the others; return how long to wait before the next look."""
        interval = self._intervals.follow
        try:
            logs = stored_log.find_logs({follower.job for follower in followers})
            for follower in followers:
                follower.look(logs)
        except DATABASE_UNAVAILABLE:
            interval = self._intervals.retry_unavailable
        except Exception:  # without this thread all followers would wait for ever
            logger.exception("looking for new lines of logs failed")
            interval = self._intervals.retry_unavailable
        finally:
            release_connection()
        now = time.monotonic()
        over = [follower for follower in followers if follower.has_news or follower.deadline <= now]
        with self._lock:
            self._followers += [follower for follower in followers if not follower.has_news and follower.deadline > now]
        for follower in sorted(over, key=attrgetter("job")):  # those of one log together: they share what they read next
            follower.pause.end()
        return interval


log_watch: Final = LogWatch()
