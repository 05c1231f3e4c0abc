"""Wait for a condition, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_FIRST_STEP_SECONDS, _STEP_SECONDS = 0.002, 0.02  # most conditions are met within a few milliseconds


def wait_for(condition: Callable[[], T | None], timeout: float = 30, what: str = "", step: float | None = None) -> T:
    """Call `condition` until it returns a true value; return that value.

    There are `step` seconds between two calls, or by default a few milliseconds at first and more later. Raise
    `AssertionError` after `timeout` seconds, with `what` was waited for and the last value.
    """
    deadline = time.monotonic() + timeout
    pause = step or _FIRST_STEP_SECONDS
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not after {timeout:g} s: {what or condition!r} (last answer: {answer!r})")
        time.sleep(pause)
        pause = step or min(2 * pause, _STEP_SECONDS)
    return answer
