"""The display makes room for the log and for messages, and shows texts as they are."""

import io
import os
import re

import pytest

from orchestrator_site.client.progress import Mood
from orchestrator_site.client.terminal_progress import TerminalProgress

pytestmark = pytest.mark.stateless

COLUMNS = 60


class Terminal(io.TextIOWrapper):
    """A terminal that records what is written to it."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding, write_through=True)

    def isatty(self) -> bool:
        return True

    def take(self) -> str:
        """Return what was written since the last call, without colors."""
        assert isinstance(self.buffer, io.BytesIO)
        text = self.buffer.getvalue().decode(self.encoding)
        self.seek(0)
        self.truncate()
        return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.fixture(autouse=True)
def _terminal_of_a_usual_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.delenv("NO_COLOR", raising=False)


class Log(io.BytesIO):
    """The stdout of a job, which is a terminal or not."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def test_a_state_replaces_the_one_before_and_leaves_nothing() -> None:
    terminal = Terminal()
    progress = TerminalProgress(terminal)

    progress.state("pulling alpine")
    progress.state("running")
    progress.close()

    shown = terminal.take()
    assert re.search(r"pulling alpine +0:00:00", shown)
    assert "running" in shown
    assert shown.endswith("\x1b[2K")


def test_a_line_of_the_display_leaves_room_for_what_the_terminal_echoes() -> None:
    terminal = Terminal()
    progress = TerminalProgress(terminal)

    progress.state("waiting: " + "x" * 200)
    progress.close()

    lines = re.split(r"[\r\n]|\x1b\[\?25[lh]|\x1b\[2K", terminal.take())
    assert max(map(len, lines)) < COLUMNS - len("^C")


def test_texts_are_not_markup() -> None:
    terminal = Terminal()
    progress = TerminalProgress(terminal)

    progress.state("running on [red]vm[/red]")
    progress.say("job :smile: [bold]a[/bold]")
    progress.close()

    shown = terminal.take()
    assert "running on [red]vm[/red]" in shown
    assert "job :smile: [bold]a[/bold]" in shown


def test_the_display_disappears_while_the_log_is_on_a_terminal() -> None:
    # Given a display
    terminal = Terminal()
    progress = TerminalProgress(terminal)
    progress.state("running")

    # When the log is written to a terminal
    progress.log_written(Log(is_terminal=True), b"unfinished")
    terminal.take()

    # I expect no display until the log has ended, and then on a new line
    progress.state("running")
    assert terminal.take() == ""
    progress.log_ended()
    progress.state("sending outputs")
    progress.close()
    shown = terminal.take()
    assert shown.startswith("\n")
    assert "sending outputs" in shown


def test_the_display_stays_while_the_log_goes_elsewhere() -> None:
    terminal = Terminal()
    progress = TerminalProgress(terminal)

    progress.log_written(Log(is_terminal=False), b"unfinished")
    progress.state("running")
    progress.close()

    assert "running" in terminal.take()


def test_the_display_disappears_before_a_program_gets_the_log_and_nothing_is_erased_then() -> None:
    # Given a display, and a pipe to a program that may write to the same terminal
    terminal = Terminal()
    progress = TerminalProgress(terminal)
    progress.state("running")
    reader, writer = os.pipe()
    with open(reader, "rb"), open(writer, "wb") as pipe:
        # When the log is written to it
        progress.log_written(pipe, b"a line\n")

    # I expect the display to be gone, and a message to leave alone what the program may have written
    assert terminal.take().endswith("\x1b[2K")
    progress.state("running")
    progress.say("completed")
    assert terminal.take() == "• completed\n"


@pytest.mark.parametrize(("written", "before"), [(b"unfinished", "\n"), (b"a line\n", "\r\x1b[2K")])
def test_a_message_begins_on_a_line_of_its_own(written: bytes, before: str) -> None:
    terminal = Terminal()
    progress = TerminalProgress(terminal)
    progress.log_written(Log(is_terminal=True), written)

    progress.say("cancelling", Mood.PLAIN)

    assert terminal.take() == f"{before}• cancelling\n"


def test_marks_are_ascii_if_the_terminal_has_no_others() -> None:
    terminal = Terminal("ascii")

    TerminalProgress(terminal).say("failed", Mood.ERROR)

    assert terminal.take().endswith("! failed\n")


@pytest.mark.parametrize(("variable", "colors"), [("", 1), ("1", 0)])
def test_no_color_turns_the_colors_off(variable: str, colors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", variable)
    terminal = Terminal()

    TerminalProgress(terminal).say("failed", Mood.ERROR)

    assert isinstance(terminal.buffer, io.BytesIO)
    assert terminal.buffer.getvalue().count(b"\x1b[31m") == colors
