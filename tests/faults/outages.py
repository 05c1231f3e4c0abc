"""Times without the engine, and what they mean for a job."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Outage:
    """A time without the engine, which kept its processes alive.

    The engine loses what a process prints during it, and possibly the exit code of a process that ends during it.
    """

    begin: datetime
    end: datetime

    def began_in_start_of(self, job: dict[str, Any]) -> bool:
        """Return whether the job says that the engine went away while it started the job's process."""
        says_so = "startedAt" not in job and "while it started the process" in job["error"]
        return says_so and _time(job, "createdAt") < self.begin

    def began_in_run_of(self, job: dict[str, Any]) -> bool:
        """Return whether the process ran then: the engine may have read output of it that it never stored."""
        return "startedAt" in job and _time(job, "startedAt") <= self.begin <= _time(job, "finishedAt")

    def ended_after_start_of(self, job: dict[str, Any]) -> bool:
        return _time(job, "startedAt") < self.end

    def covers_decision_of(self, job: dict[str, Any]) -> bool:
        return self.begin <= _time(job, "finishedAt") <= self.end

    def overlaps_stop_of(self, job: dict[str, Any]) -> bool:
        """Return whether the engine was away between the decision to stop the job and its end."""
        return _time(job, "finishedAt") <= self.end and self.begin <= _time(job, "completedAt")


def _time(job: dict[str, Any], member: str) -> datetime:
    return datetime.fromisoformat(job[member])
