"""How long a run waits after a step that failed, and when it gives its job up."""

import random
from typing import Final

from jobs.errors import JobError
from orchestrator_site.base.db.encryption import Unreadable
from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE
from orchestrator_site.base.intervals import RunIntervals

MAX_UNEXPECTED: Final = 5  # errors in a row that nothing in the code expects


def is_temporary(error: Exception) -> bool:
    """Return whether the step that raised `error` may succeed later without any change of the job.

    A secret that no key decrypts is one: the key may be missing here only, and the job is not at fault.
    """
    return isinstance(error, (*DATABASE_UNAVAILABLE, Unreadable)) or (isinstance(error, JobError) and error.retry)


class Retries:
    """A counter of the failures of one run since its last success."""

    def __init__(self, intervals: RunIntervals = RunIntervals()) -> None:
        self._pauses = intervals.retries
        self._temporary = 0
        self._unexpected = 0

    def reset(self) -> None:
        """Forget all failures: a step has succeeded."""
        self._temporary = self._unexpected = 0

    def after_temporary(self) -> float:
        """Count a temporary failure. Return the seconds to wait; these may go on forever."""
        self._temporary += 1
        return self._pause(self._temporary - 1)

    def after_unexpected(self) -> float:
        """Count an unexpected failure. Return the seconds to wait."""
        self._unexpected += 1
        return self._pause(self._unexpected)

    def exhausted(self) -> bool:
        """Return True once after every `MAX_UNEXPECTED` unexpected failures in a row."""
        if self._unexpected < MAX_UNEXPECTED:
            return False
        self._unexpected = 0
        return True

    def _pause(self, index: int) -> float:
        # At random, so that many runs which fail together do not try again together.
        return self._pauses[min(index, len(self._pauses) - 1)] * random.uniform(0.7, 1.3)  # noqa: S311 - spreads load
