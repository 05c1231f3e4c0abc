"""Faults that tests inject into the fake engine."""

import functools
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from jobs.errors import EngineUnavailable

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound="FaultInjection")


def fallible(method: Callable[Concatenate[E, P], R]) -> Callable[Concatenate[E, P], R]:
    """Let a call fail while the engine is unavailable, or as `fail_next` says."""

    @functools.wraps(method)
    def call(self: E, /, *args: P.args, **kwargs: P.kwargs) -> R:
        self.check_available()
        failure, after = self._next_fault(method.__name__)
        if failure is not None and not after:
            raise failure
        result = method(self, *args, **kwargs)
        if failure is not None:
            raise failure
        return result

    return call


class FaultInjection:
    """An engine whose `fallible` calls fail on request."""

    def __init__(self) -> None:
        self._unavailable = False
        self._faults: defaultdict[str, deque[tuple[Exception, bool]]] = defaultdict(deque)
        self._faults_lock = threading.Lock()

    @property
    def unavailable(self) -> bool:
        """While true, every call raises `EngineUnavailable`, including those that are blocked."""
        return self._unavailable

    @unavailable.setter
    def unavailable(self, value: bool) -> None:
        self._unavailable = value
        self._wake_blocked_calls()

    def fail_next(self, method: str, failure: Exception, *, after: bool = False) -> None:
        """Let the next call of `method` raise `failure`, instead of taking effect or `after` it. Several calls queue up."""
        if not callable(getattr(self, method)):
            raise TypeError(f"{method} is not a method")
        with self._faults_lock:
            self._faults[method].append((failure, after))

    def check_available(self) -> None:
        """Raise `EngineUnavailable` if the engine is unavailable."""
        if self._unavailable:
            raise EngineUnavailable("the engine does not answer")

    def _next_fault(self, method: str) -> tuple[Exception | None, bool]:
        with self._faults_lock:
            faults = self._faults[method]
            return faults.popleft() if faults else (None, False)

    def _wake_blocked_calls(self) -> None:
        """Make blocked calls check whether the engine is available."""
        raise NotImplementedError
