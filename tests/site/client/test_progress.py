"""Progress without a terminal is a few lines; with `--quiet` it is errors only."""

import io

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
