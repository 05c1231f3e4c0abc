"""`manage.py rotate_keys`, and what says that a key is missing."""

import logging
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import OperationalError

from jobs.models import Job
from orchestrator_site.base.db import key_rotation
from orchestrator_site.base.db.encryption import Keys
from orchestrator_site.base.db.key_rotation import Progress
from orchestrator_site.base.intervals import CommandIntervals
from orchestrator_site.management.commands import rotate_keys
from orchestrator_site.processes import relay
from tests.helpers.encryption_keys import LOST, NEW, OLD, make_secret_job, use_keys

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def keys(settings: Any) -> None:
    use_keys(settings, NEW, OLD)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def run(out: StringIO | None = None) -> str:
    out = out or StringIO()
    call_command("rotate_keys", stdout=out)
    return out.getvalue()


def test_it_says_what_was_done_and_that_the_other_keys_can_be_removed(settings: Any) -> None:
    for key in (OLD, NEW):
        make_secret_job(settings, key)

    lines = run().splitlines()

    assert "jobs_job: 2 rows, 1 encrypted again" in lines
    assert "jobs_input: 4 rows, 2 encrypted again" in lines
    assert "can be removed" in lines[-1]
    use_keys(settings, NEW)
    assert [job.environment for job in Job.objects.all()] == [{"TOKEN": "secret"}] * 2


def test_what_no_key_decrypts_makes_it_fail_after_the_rest(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given more rows than are named that no key decrypts, and one that can be decrypted
    monkeypatch.setattr(rotate_keys, "_SHOWN", 2)
    for key in (LOST, LOST, LOST, OLD):
        make_secret_job(settings, key)

    # When
    out = StringIO()
    with pytest.raises(CommandError, match=r"^15 rows have secrets that none of ENCRYPTION_KEYS decrypts") as error:
        run(out)

    # I expect the exit code of a failure, and the first rows of each table to be named without their contents
    assert error.value.returncode == 1
    assert out.getvalue().count("no key decrypts jobs_job") == 2
    assert "jobs_job: 4 rows, 1 encrypted again, 3 cannot be decrypted" in out.getvalue()
    assert "can be removed" not in out.getvalue()
    assert "secret\n" not in out.getvalue()
    # and that from this on only the missing key is needed
    use_keys(settings, NEW, LOST)
    assert "can be removed" in run()


def test_what_another_process_adds_meanwhile_makes_it_fail(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a process with another first key, which adds a row while the last table is looked at
    rotate, calls = key_rotation.rotate, []

    def rotate_and_add(*arguments: Callable[..., None]) -> list[Progress]:
        done = rotate(*arguments)
        if not calls:
            make_secret_job(settings, OLD)
        calls.append(done)
        return done

    monkeypatch.setattr(key_rotation, "rotate", rotate_and_add)

    # When, I expect its rows to be encrypted again, and the process to be what has to be changed
    with pytest.raises(CommandError, match=r"^5 more rows .* another first key"):
        run()
    assert Job.objects.filter(environment__startswith=Keys((NEW,)).mark).exists()
    assert "can be removed" in run()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [(KeyboardInterrupt(), 130, "Interrupted"), (OperationalError("gone"), 1, "The database does not answer: gone")],
)
def test_an_end_that_is_not_a_bug_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(key_rotation, "rotate", fail)
    with pytest.raises(CommandError, match=rf"^{said}.*Run the command again: it continues") as caught:
        run()
    assert caught.value.returncode == code


@pytest.mark.parametrize(("out", "expected"), [(StringIO(), "jobs_job: 0 rows, 1 encrypted again …\n"), (Terminal(), "\r\x1b[K")])
def test_progress_is_a_line_on_a_terminal_and_lines_elsewhere(
    settings: Any, monkeypatch: pytest.MonkeyPatch, out: StringIO, expected: str
) -> None:
    make_secret_job(settings, OLD)
    monkeypatch.setattr(rotate_keys, "CommandIntervals", lambda: CommandIntervals(display=0, progress=0))

    text = run(out)

    assert expected in text
    steps = [line for line in text.replace("\r", "\n").splitlines() if "…" in line]
    assert len(steps) > 8
    assert ("\x1b[K" in text) == out.isatty()
    assert text.endswith("first key.\n")


def test_a_missing_key_is_said_at_the_start_of_the_relay_and_by_checks(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    def said() -> list[str]:
        caplog.clear()
        relay.report_unreadable_secrets()
        return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]

    def warnings(**options: Any) -> list[str]:
        return [message.msg for message in run_checks(**options) if message.id == "orchestrator.W002"]

    # Given rows that can be decrypted
    make_secret_job(settings, OLD)
    assert said() == []
    assert warnings(databases=["default"]) == []

    # When the key is removed too soon
    use_keys(settings, NEW)

    # I expect both to name rows, and no check to read the database unless it is to
    assert len(said()) == len(warnings(databases=["default"])) == 5
    assert all(line.startswith("no key in ENCRYPTION_KEYS decrypts ") for line in said() + warnings(databases=["default"]))
    assert warnings() == []
