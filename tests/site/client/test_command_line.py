"""The ways to start the client."""

import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from environment import without_service

from orchestrator_site.client import command_line
from orchestrator_site.client.interrupts import Interrupted
from tests.helpers.pipes import has_unread
from tests.helpers.waiting import wait_for
from tests.site.client.peers import Peer, Reply, serving

pytestmark = pytest.mark.stateless

DONE = {
    "id": "a",
    "status": "completed",
    "exitCode": 0,
    "finishedAt": "2026-01-31T12:00:00Z",
    "completedAt": "2026-01-31T12:00:00Z",
}
EMPTY_LOG = {"lines": [], "next": 0, "complete": True}
ROOT = Path(__file__).resolve().parents[3]


def printed_by(*command: str, code: int, state: Path) -> str:
    """Return what a command of Python prints to both streams, without any variable of the service but STATE_DIR."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=without_service() | {"STATE_DIR": str(state)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


@pytest.mark.parametrize(
    ("command", "prog"),
    [
        (["manage.py", "run", "--help"], "manage.py run"),
        (["manage.py", "help", "run"], "manage.py run"),
        (["-m", "orchestrator_site.client", "--help"], "bin/run"),
    ],
)
def test_help_begins_with_the_name_of_the_command(command: list[str], prog: str, tmp_path: Path) -> None:
    assert printed_by(*command, code=0, state=tmp_path).startswith(f"usage: {prog} [options] IMAGE")


@pytest.mark.parametrize(
    ("command", "answers"),
    [
        (["alpine", "true"], [Reply(202, {"id": "a"}), Reply(200, DONE), Reply(200, EMPTY_LOG)]),
        (["logs", "a"], [Reply(200, EMPTY_LOG)]),
        (["status", "a"], [Reply(200, DONE)]),
        (["cancel", "a"], [Reply(204), Reply(200, DONE)]),
        (["list"], [Reply(200, {"jobs": []})]),
    ],
)
def test_every_request_names_the_namespace_that_was_given(command: list[str], answers: list[Reply]) -> None:
    peer = Peer()
    peer.replies.extend(answers * 2)
    with serving(peer):
        for options in ([], ["--namespace", "team-a"]):
            assert command_line.main("bin/run", [command[0], *options, *command[1:]], {"ORCHESTRATOR_URL": peer.url}) == 0
    asked = [parse_qs(urlsplit(path).query).get("namespace") for _, path, _, _ in peer.requests]
    assert asked == [None] * len(answers) + [["team-a"]] * len(answers)


@pytest.mark.parametrize(("is_terminal", "printed"), [(True, "\n"), (False, "")])
def test_ctrl_c_ends_its_line_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_terminal: bool, printed: str
) -> None:
    def interrupt(*_: object) -> int:
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(command_line, "_carry_out", interrupt)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    assert command_line.main("bin/run", ["logs", "nightly"], {}) == 130
    assert capsys.readouterr().err == printed


def test_the_notes_of_the_help_fit_a_narrow_terminal(tmp_path: Path) -> None:
    printed = printed_by("-m", "orchestrator_site.client", "--help", code=0, state=tmp_path)
    notes = printed[printed.index("commands for jobs") :].splitlines()  # the rest is wrapped by argparse
    assert max(map(len, notes[1:])) <= 60


def test_help_fits_a_usual_terminal(tmp_path: Path) -> None:
    assert all(len(line) < 80 for line in printed_by("manage.py", "run", "--help", code=0, state=tmp_path).splitlines())


@pytest.mark.parametrize("command", [["manage.py", "run"], ["-m", "orchestrator_site.client"]])
def test_an_error_is_one_line(command: list[str], tmp_path: Path) -> None:
    printed = printed_by(*command, "--no-such-option", "alpine", code=125, state=tmp_path)

    assert len(printed.splitlines()) == 1
    assert "--no-such-option is not an option" in printed
    assert printed.startswith("run: ")


def test_the_script_works_in_any_directory(tmp_path: Path) -> None:
    # Given a directory with a file that has the name of a module of Python
    (tmp_path / "json.py").write_text("raise SystemExit('imported')")

    # When bin/run is started there
    done = subprocess.run(
        [ROOT / "bin" / "run", "--no-such-option", "alpine"],
        cwd=tmp_path,
        env=without_service() | {"STATE_DIR": str(tmp_path)},
        capture_output=True,
        timeout=60,
        check=False,
    )

    # I expect the client, with the arguments, and not that file
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.startswith(b"run: --no-such-option is not an option of bin/run")


def in_shell(peer: Peer, command: str, state: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the shell in which `$RUN` is the client, connected to the peer."""
    return subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env=without_service()
        | {"STATE_DIR": str(state), "ORCHESTRATOR_URL": peer.url, "RUN": f"{sys.executable} -m orchestrator_site.client"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "reply", "error"),
    [
        ("list", Reply(200, {"jobs": [{}]}), ""),
        ("status hello", Reply(200, {}), ""),
        ("--detach --id hello alpine", Reply(202, {}), "run: job hello is accepted\n"),
    ],
)
def test_output_that_cannot_be_written_is_one_error(command: str, reply: Reply, error: str, tmp_path: Path) -> None:
    peer = Peer()
    with serving(peer):
        peer.replies.append(reply)
        done = in_shell(peer, f"$RUN {command} > /dev/full", tmp_path)

    assert (done.returncode, done.stderr) == (125, f"{error}run: cannot write the output (No space left on device)\n")


def test_a_reader_that_has_gone_is_not_an_error(tmp_path: Path) -> None:
    peer = Peer()
    with serving(peer):
        peer.replies.append(Reply(200, {"jobs": [{}]}))
        done = in_shell(peer, "{ sleep 0.1; $RUN list; echo $? >&2; } | true", tmp_path)

    assert done.stderr == "141\n"


@pytest.mark.parametrize("command", ["--no-such-option alpine", "status"])
def test_an_error_that_nobody_reads_has_its_exit_code(command: str, tmp_path: Path) -> None:
    code = tmp_path / "code"

    in_shell(Peer(), f"{{ sleep 0.1; $RUN {command}; echo $? > {code}; }} 2>&1 | true", tmp_path)

    assert code.read_text() == "125\n"


def test_a_job_of_which_nothing_can_be_said_is_cancelled(tmp_path: Path) -> None:
    # Given a command whose messages go into a pipe without a reader
    peer, code = Peer(), tmp_path / "code"
    with serving(peer):
        peer.replies.extend([Reply(202), Reply(204)])
        in_shell(peer, f"{{ sleep 0.1; $RUN --id hello alpine; echo $? > {code}; }} 2>&1 | true", tmp_path)

    # I expect what happens if its log cannot be written
    assert [(method, path) for method, path, _, _ in peer.requests] == [("POST", "/v1/jobs"), ("DELETE", "/v1/jobs/hello")]
    assert code.read_text() == "141\n"


@pytest.mark.parametrize(
    ("setup", "code"), [("exit 1", 125), ("no-such-program", 125), ("kill -INT $$", 130), ("kill -TERM $$", 143)]
)
def test_a_setup_that_ends_has_a_code_of_its_own(setup: str, code: int, tmp_path: Path) -> None:
    # Given bin/run, and a setup that fails or is interrupted
    shutil.copy(ROOT / "bin" / "run", tmp_path)
    (tmp_path / "setup").write_text(setup)

    # When a shell runs it, I expect no code that a job would usually have
    assert (
        subprocess.run(["bash", "-c", f"{tmp_path}/run; exit $?"], capture_output=True, timeout=60, check=False).returncode
        == code
    )


def test_ctrl_c_while_the_client_is_imported_prints_nothing(tmp_path: Path) -> None:
    # Given a module that the client imports, and that gets Ctrl-C
    (tmp_path / "argparse.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")

    done = subprocess.run(
        [sys.executable, "-P", "-m", "orchestrator_site.client", "list"],
        env=without_service() | {"STATE_DIR": str(tmp_path), "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_a_second_signal_ends_a_command_whose_output_is_not_read(tmp_path: Path) -> None:
    # Given a command that prints more than a pipe takes
    peer = Peer()
    peer.replies.append(Reply(200, {"jobs": [{"meta": {"text": "x" * 5000}}] * 20}))
    with (
        serving(peer),
        subprocess.Popen(
            [sys.executable, "-m", "orchestrator_site.client", "list", "--json"],
            cwd=ROOT,
            env=without_service() | {"STATE_DIR": str(tmp_path), "ORCHESTRATOR_URL": peer.url},
            stdout=subprocess.PIPE,
        ) as command,
    ):
        assert command.stdout
        wait_for(partial(has_unread, command.stdout, 32_768), what="the pipe to fill")

        # When it gets two signals, which are different, so that neither is lost
        command.send_signal(signal.SIGINT)
        command.terminate()

        # I expect it to end although nothing reads
        assert command.wait(60) in (130, 143)


def test_streams_that_are_closed_are_ignored(tmp_path: Path) -> None:
    peer = Peer()
    with serving(peer):
        peer.replies.append(Reply(200, {"jobs": []}))
        done = in_shell(peer, "$RUN list <&- >&- 2>&-", tmp_path)

    assert (done.returncode, done.stderr) == (0, "")


def test_manage_lists_the_command(tmp_path: Path) -> None:
    assert "    run\n" in printed_by("manage.py", "help", code=0, state=tmp_path)
