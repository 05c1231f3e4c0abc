"""A clock that moves only when the test says so."""

from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


class ManualClock:
    """Seconds, as of `time.monotonic`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: int, check: Callable[[], _Result]) -> _Result:
        """Move on by `seconds`, calling `check` after each. Return the result of its last call."""
        for _ in range(seconds):
            self.now += 1
            result = check()
        return result
