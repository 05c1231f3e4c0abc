"""Progress without a terminal is a few lines; with `--quiet` it is errors only."""

import io
from pathlib import Path

import pytest

from orchestrator_site.client.progress import Mood, PlainProgress, QuietProgress

pytestmark = pytest.mark.stateless


def test_a_state_is_printed_once_however_its_numbers_change() -> None:
    # Given the states of a job that downloads an input
    stderr = io.StringIO()
    progress = PlainProgress(stderr)

    for state in ("17 jobs ahead", "3 jobs ahead", "downloading: 1.5 MiB of 4 GiB", "downloading: 2 GiB of 4 GiB", "starting"):
        progress.state(state)

    assert stderr.getvalue() == "run: 17 jobs ahead\nrun: downloading: 1.5 MiB of 4 GiB\nrun: starting\n"


def test_quiet_means_errors_only() -> None:
    stderr = io.StringIO()
    progress = QuietProgress(stderr)

    progress.state("starting")
    for mood in Mood:
        progress.say(mood.value, mood)

    assert stderr.getvalue() == "run: error\n"


@pytest.mark.parametrize(
    ("log", "shown"), [("same", "log\nrun: job ended\nrun: really\n"), ("other", "run: job ended\nrun: really\n")]
)
def test_a_message_begins_on_a_line_of_its_own(log: str, shown: str, tmp_path: Path) -> None:
    # Given a log that is written to stderr's file, or to another
    stderr_file = tmp_path / "same"
    with stderr_file.open("a") as stderr, (tmp_path / log).open("ab", buffering=0) as stdout:
        progress = PlainProgress(stderr)

        # When the log ends in the middle of a line, and messages follow
        progress.log_written(stdout, b"log")
        stdout.write(b"log")
        progress.say("job ended")
        progress.say("really")

    assert stderr_file.read_text() == shown
