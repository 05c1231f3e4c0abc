"""Jobs whose owners die: how many owners one job may take with it, and how the guilty one is told from those beside it.

A worker that is killed or freezes has all of its jobs orphaned, and the death counts against each of them. It is forgotten when
a job gets a step further (it starts, its log is read on, it is decided, an output is done) or has been driven well for a while.
After a few deaths a job is a suspect: a process then takes such jobs one at a time, the worst first, so the next death counts
against the guilty job alone. In the end that job is given up.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from jobs.lifecycle import Claim

SUSPECT_AFTER: Final = 3  # deaths: a deploy that goes wrong may cost one or two
GIVEN_UP_AFTER: Final = 10  # an innocent job may be on trial while somebody kills workers again and again
GIVEN_UP: Final = f"{GIVEN_UP_AFTER} workers in a row died while they drove the job: it is not tried again"
WELL_AFTER: Final = 5.0  # seconds: what kills an owner does so as soon as it is looked at
_TRIAL_SECONDS: Final = 30.0  # for one that has yet to start: a pull may take long, and the others wait


class Suspects:
    """Those of one worker process. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._on_trial: Claim | None = None
        self._since = 0.0

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Whether a suspect may be claimed inside: by one thread, and while no other is on trial."""
        mine = self._turn.acquire(blocking=False)
        try:
            yield mine and not self._is_one_on_trial()
        finally:
            if mine:
                self._turn.release()

    def taken(self, claim: Claim) -> None:
        """Called inside `turn` with what was claimed."""
        if claim.deaths >= SUSPECT_AFTER:
            with self._lock:
                self._on_trial, self._since = claim, self._clock()

    def cleared(self, claim: Claim) -> None:
        """Its owner has survived it, or drives it no more."""
        with self._lock:
            if self._on_trial == claim:
                self._on_trial = None

    def _is_one_on_trial(self) -> bool:
        with self._lock:
            return self._on_trial is not None and self._clock() - self._since < _TRIAL_SECONDS
