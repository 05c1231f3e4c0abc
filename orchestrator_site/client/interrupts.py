"""Signals that interrupt the client only where it waits, so that no output is lost and no request is left in doubt."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal has come: `number` is the signal's. Not an `Exception`, so that no handler of errors takes it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Interrupts:
    """SIGINT and SIGTERM. The first takes effect where `allowed` permits it, any later one at once."""

    def __init__(self) -> None:
        self._allowed = False
        self._received = 0
        self._reported = 0
        self._number = 0

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals, and restore their handlers afterwards. One that is ignored, as a shell's `&` has it, stays so."""
        handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        previous = {number: signal.signal(number, self._handle) for number in handled}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let a signal raise `Interrupted` in this block, at its start if it came before."""
        previous, self._allowed = self._allowed, True
        reported = self._reported
        try:
            if reported < self._received:
                self._report()
            yield
            if reported < self._reported:  # raised where Python drops errors, such as in a callback of the garbage collector
                self._report()
        finally:
            self._allowed = previous

    def sleep(self, seconds: float) -> None:
        """Sleep, unless a signal comes."""
        with self.allowed():
            time.sleep(seconds)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self._received += 1
        self._number = number
        if self._allowed or self._received > 1:
            self._report()

    def _report(self) -> None:
        self._reported = self._received
        raise Interrupted(self._number)
