"""Wait for a condition, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_STEP_SECONDS = 0.02


def wait_for(condition: Callable[[], T | None], timeout: float = 30, what: str = "", step: float = _STEP_SECONDS) -> T:
    """Call `condition` every `step` seconds until it returns a true value; return that value.

    Raise `AssertionError` after `timeout` seconds, with `what` was waited for and the last value.
    """
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not after {timeout:g} s: {what or condition!r} (last answer: {answer!r})")
        time.sleep(step)
    return answer
