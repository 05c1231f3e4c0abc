"""Finds the job that kills its workers among those that ran beside it, so that it can be given up.

When a worker is killed or freezes, its death counts against each of its jobs. The count is forgotten when a job gets a step
further (it starts, more of its log is read, it is decided, an output is done) or has been driven for a while. After a few
deaths a job is a suspect: a worker then claims such jobs one at a time, the one with most deaths first, so that the next death
counts against that job alone. In the end it is given up.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from jobs.lifecycle import Claim
from orchestrator_site.base.intervals import WorkerIntervals

SUSPECT_AFTER: Final = 3  # deaths: a deployment that goes wrong may cost one or two
GIVEN_UP_AFTER: Final = 10  # deaths: a harmless job may be on trial while an operator kills workers again and again
GIVEN_UP: Final = f"{GIVEN_UP_AFTER} workers in a row died while they ran the job"


class Suspects:
    """The suspects of one worker process. Thread-safe."""

    def __init__(self, intervals: WorkerIntervals = WorkerIntervals(), clock: Callable[[], float] = time.monotonic) -> None:
        self._trial = intervals.trial
        self._clock = clock
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._on_trial: Claim | None = None
        self._since = 0.0

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Yield whether a suspect may be claimed inside: only by one thread, and only while no suspect is on trial."""
        acquired = self._turn.acquire(blocking=False)
        try:
            yield acquired and not self._is_trial_running()
        finally:
            if acquired:
                self._turn.release()

    def put_on_trial(self, claim: Claim) -> None:
        """Put a job that was claimed inside `turn` on trial, if it is a suspect."""
        if claim.deaths >= SUSPECT_AFTER:
            with self._lock:
                self._on_trial, self._since = claim, self._clock()

    def clear(self, claim: Claim) -> None:
        """End the trial of a job that its worker has survived, or does not drive any more."""
        with self._lock:
            if self._on_trial == claim:
                self._on_trial = None

    def _is_trial_running(self) -> bool:
        with self._lock:
            return self._on_trial is not None and self._clock() - self._since < self._trial
