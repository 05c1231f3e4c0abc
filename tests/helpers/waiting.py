"""Waiting for what will be, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_STEP_SECONDS = 0.02


def wait_for(condition: Callable[[], T | None], timeout: float = 30, what: str = "", step: float = _STEP_SECONDS) -> T:
    """Call `condition` every `step` seconds until it answers something true, and give that back.

    Raises `AssertionError` after `timeout` seconds, with the last answer and `what` was waited for.
    """
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not after {timeout:g} s: {what or condition!r} (last answer: {answer!r})")
        time.sleep(step)
    return answer
