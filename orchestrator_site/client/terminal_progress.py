"""A live display on a terminal: the present state with a spinner and the time that it takes. Only this module uses rich."""

import os
import stat
from typing import BinaryIO, Final, TextIO

from rich.console import Console
from rich.control import Control
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.segment import ControlType
from rich.table import Column
from rich.text import Text

from orchestrator_site.client.progress import Mood

_MARKS: Final = {Mood.PLAIN: ("•", "cyan"), Mood.GOOD: ("✓", "green"), Mood.BAD: ("✗", "red"), Mood.ERROR: ("✗", "red")}
_ASCII_MARKS: Final = {Mood.PLAIN: "-", Mood.GOOD: "+", Mood.BAD: "!", Mood.ERROR: "!"}

_BESIDE_TEXT: Final = 20  # columns: the spinner, the clock, what separates them, and the ^C of a terminal


class TerminalProgress:
    """The display makes room for the log as soon as the log is on a terminal, too, or may come there from a pipe."""

    def __init__(self, stderr: TextIO) -> None:
        self._console = Console(file=stderr)
        self._has_unicode = self._console.encoding.lower().startswith("utf")
        self._display: Progress | None = None
        self._is_covered = False  # by the log, which is on this terminal
        self._at_line_start: bool | None = True  # None: unknown

    def state(self, text: str) -> None:
        if self._is_covered:
            return
        if self._display is None:
            self._start_line()
            self._display = self._new_display()
            self._display.add_task(text)
            self._display.start()
        else:
            [task] = self._display.task_ids
            self._display.update(task, description=text)

    def say(self, text: str, mood: Mood = Mood.PLAIN) -> None:
        mark, style = _MARKS[mood]
        if not self._has_unicode:
            mark = _ASCII_MARKS[mood]
        self._start_line()
        self._console.print(Text.assemble((f"{mark} ", style), text), soft_wrap=True)

    def log_written(self, stream: BinaryIO, data: bytes) -> None:
        is_terminal = stream.isatty()
        if is_terminal or _is_pipe(stream):
            self.close()
            self._is_covered = True
            self._at_line_start = data.endswith(b"\n") if is_terminal else None

    def log_ended(self) -> None:
        self._is_covered = False

    def close(self) -> None:
        if self._display is not None:
            self._display.stop()
            self._display = None

    def _start_line(self) -> None:
        """Begin a new line if the job did not end its last one. On an empty one, remove the ^C that the terminal has shown."""
        if self._at_line_start is False:
            self._console.print()
        elif self._at_line_start and self._display is None:
            self._console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))
        self._at_line_start = True

    def _new_display(self) -> Progress:
        # If the line took the whole width, a ^C would continue on the next one, and the display would not find its place.
        width = max(1, self._console.width - _BESIDE_TEXT)
        text = TextColumn(
            "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", max_width=width)
        )
        return Progress(
            SpinnerColumn("dots" if self._has_unicode else "line"),
            text,
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )


def _is_pipe(stream: BinaryIO) -> bool:
    """Return whether a program reads the stream, which may write to this terminal."""
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except OSError:
        return False
