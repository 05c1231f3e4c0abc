"""Tells what happens to a job, on stderr: a live display on a terminal, lines otherwise."""

import os
import re
from enum import Enum
from typing import BinaryIO, Final, Protocol, TextIO

_AMOUNTS: Final = re.compile(r"[0-9.]+ ?(?:[KMGT]iB|bytes)?")


class Mood(Enum):
    """How a message is marked."""

    PLAIN = "plain"
    GOOD = "good"
    BAD = "bad"
    ERROR = "error"  # also printed with `--quiet`


class Progress(Protocol):
    """What `run` reports beside the log. Texts must have no control characters."""

    def state(self, text: str) -> None:
        """Show the present state, instead of the one before."""

    def say(self, text: str, mood: Mood = Mood.PLAIN) -> None:
        """Print a message that stays."""

    def log_written(self, stream: BinaryIO, data: bytes) -> None:
        """Note that these bytes of the job's log are about to be written to `stream`."""

    def log_ended(self) -> None:
        """Note that no more of the log is written."""

    def close(self) -> None:
        """End the display."""


class QuietProgress:
    """Prints errors only."""

    def __init__(self, stderr: TextIO) -> None:
        self._stderr = stderr
        self._at_line_start = True

    def state(self, text: str) -> None:
        """Print nothing."""

    def say(self, text: str, mood: Mood = Mood.PLAIN) -> None:
        if mood is Mood.ERROR:
            self._print(text)

    def log_written(self, stream: BinaryIO, data: bytes) -> None:
        if os.path.sameopenfile(stream.fileno(), self._stderr.fileno()):  # stdout is so with `2>&1`
            self._at_line_start = data.endswith(b"\n")

    def log_ended(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def _print(self, text: str) -> None:
        start = "" if self._at_line_start else "\n"  # if the job has not ended its last line
        self._at_line_start = True
        print(f"{start}run: {text}", file=self._stderr, flush=True)


class PlainProgress(QuietProgress):
    """Prints a line for each message, and for each state that differs from the one before in more than its numbers."""

    def __init__(self, stderr: TextIO) -> None:
        super().__init__(stderr)
        self._last = ""

    def state(self, text: str) -> None:
        kind = _AMOUNTS.sub("", text)
        if kind != self._last:
            self._last = kind
            self._print(text)

    def say(self, text: str, mood: Mood = Mood.PLAIN) -> None:  # noqa: ARG002
        self._print(text)
