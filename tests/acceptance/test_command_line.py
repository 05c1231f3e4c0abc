"""`bin/run` against a real service: output, exit codes, files, signals, and a restart in the middle of a log."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
from environment import free_port

from tests.acceptance.conftest import embedded_installation
from tests.helpers.pipes import has_unread
from tests.helpers.service_processes import ROOT, Service, installation
from tests.helpers.waiting import wait_for

# The command knows the API only, so one database and one engine are enough, except for the restart.
pytestmark = [pytest.mark.engine, pytest.mark.any_engine, pytest.mark.timeout(180)]

COMMAND = [sys.executable, "-m", "orchestrator_site.client"]
RUN_SECONDS = 90


def client_environment(service: Service, **variables: str) -> dict[str, str]:
    return service.environment | {"ORCHESTRATOR_URL": service.url, "PYTHONPATH": str(ROOT), **variables}


def is_open(port: int) -> bool:
    with closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def run(service: Service, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=client_environment(service, **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=RUN_SECONDS,
        check=False,
    )


@contextmanager
def started(service: Service, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [*COMMAND, *arguments],
        env=client_environment(service),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # so that `communicate` gets what `readline` has left
    ) as command:
        try:
            yield command
        finally:
            command.kill()


class Terminal:
    """A command on a terminal of its own, and what it shows."""

    def __init__(self, service: Service, *arguments: str) -> None:
        self.shown = b""
        self._file, other = pty.openpty()
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *COMMAND, *arguments],
            env=client_environment(service, TERM="xterm-256color"),
            stdin=other,
            stdout=other,
            stderr=other,
        )
        os.close(other)

    def read_until(self, pattern: bytes) -> re.Match[bytes]:
        """Return the first match in what the command shows. Fail if the command ends without one."""
        while not (found := re.search(pattern, self.shown)):
            assert self._read(), self.shown
        return found

    def press_ctrl_c(self) -> None:
        os.write(self._file, b"\x03")

    def exit_code(self) -> int:
        """Read to the end."""
        while self._read():
            pass
        return self._process.wait(RUN_SECONDS)

    def close(self) -> None:
        os.close(self._file)
        self._process.kill()
        self._process.wait()

    def _read(self) -> bool:
        try:
            data = os.read(self._file, 65536)
        except OSError:  # Linux reports the end of the other side as EIO
            return False
        self.shown += data
        return bool(data)


@contextmanager
def terminal(service: Service, *arguments: str) -> Iterator[Terminal]:
    command = Terminal(service, *arguments)
    try:
        yield command
    finally:
        command.close()


@pytest.mark.stateless
def test_the_output_and_the_exit_code_are_those_of_the_job(running: Service) -> None:
    # Given a job that prints bytes, lines of both streams, and no line feed at the end
    script = r"printf 'a\r\n\033[31mred\033[0m\n\nlast'; printf 'error\nunfinished' >&2; exit 7"

    done = run(running, "--quiet", "alpine", script)

    assert done.stdout == b"a\r\n\x1b[31mred\x1b[0m\n\nlast"
    assert done.stderr == b"error\nunfinished"
    assert done.returncode == 7


@pytest.mark.stateless
def test_a_long_log_arrives_exactly(running: Service) -> None:
    # Given a job that prints more than a page, and a line that comes in pieces
    script = "seq 1 12000; head -c 100000 /dev/zero | tr '\\0' x; echo; printf end"

    done = run(running, "--quiet", "--follow", "alpine", script)

    numbers = "".join(f"{number}\n" for number in range(1, 12001))
    assert done.stdout.decode() == f"{numbers}{'x' * 100_000}\nend"


@pytest.mark.stateless
def test_progress_is_plain_lines_without_a_terminal(running: Service) -> None:
    done = run(running, "--id", "plain", "alpine", "true")

    lines = done.stderr.decode().splitlines()
    assert lines[0] == "run: job plain"
    assert lines[-1].startswith("run: completed after ")
    assert b"\x1b" not in done.stderr


@pytest.mark.stateless
def test_files_go_in_and_come_out(running: Service, tmp_path: Path) -> None:
    # Given a file that is not UTF-8, a program, and a variable of this environment
    (tmp_path / "data").write_bytes(bytes(range(256)))
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\ncp in/data result\nprintf "%s" "$TOKEN"\n')
    program.chmod(0o755)

    # When a job copies the file to an output
    done = run(
        running,
        *("--quiet", "--input", f"in/data={tmp_path / 'data'}", "--input", f"program={program}"),
        *("--output", f"result={tmp_path / 'result'}", "--env", "TOKEN", "alpine", "./program"),
        TOKEN="the-token",
    )

    # I expect the file to be here again, and the variable in the job
    assert (done.returncode, done.stdout) == (0, b"the-token"), done.stderr
    assert (tmp_path / "result").read_bytes() == bytes(range(256))


@pytest.mark.stateless
def test_an_output_that_fails_is_an_error_of_a_completed_job(running: Service, tmp_path: Path) -> None:
    done = run(running, "--output", f"missing={tmp_path / 'result'}", "alpine", "true")

    assert done.returncode == 125
    assert b'failed: "missing" does not exist' in done.stderr
    assert not (tmp_path / "result").exists()


@pytest.mark.stateless
def test_outputs_are_received_at_the_address_that_is_given(running: Service, tmp_path: Path) -> None:
    # Given a port that a firewall lets through
    port = free_port()
    script = "echo 1 > a; echo 2 > b"
    outputs = [f"--output={name}={tmp_path / name}" for name in ("a", "b")]

    # When a job sends two outputs
    with started(running, "--follow", "--listen", f"127.0.0.1:{port}", *outputs, "alpine", f"{script}; sleep 2") as command:
        wait_for(lambda: is_open(port), what="the port to be open")

        # I expect both, and the port to be closed again
        assert command.wait(RUN_SECONDS) == 0
    assert [(tmp_path / name).read_text() for name in ("a", "b")] == ["1\n", "2\n"]
    assert not is_open(port)


@pytest.mark.stateless
def test_json_is_the_job_as_the_api_has_it(running: Service) -> None:
    done = run(running, "--json", "--follow", "--id", "as-json", "alpine", "echo hello; exit 3")

    line, job = map(json.loads, done.stdout.splitlines())
    assert (line["stream"], line["text"]) == ("stdout", "hello")
    assert job == running.get_job("as-json")
    assert done.returncode == 3


@pytest.mark.stateless
def test_a_job_without_an_exit_code_is_an_error(running: Service) -> None:
    assert run(running, "--pull", "never", "no-such-image", "true").returncode == 125
    assert run(running, "--timeout", "1s", "alpine", "trap 'exit 0' TERM; while :; do sleep 0.1; done").returncode == 124


@pytest.mark.stateless
def test_a_job_that_is_refused_names_the_option(running: Service) -> None:
    done = run(running, "--cpu", "1000", "alpine")

    assert done.returncode == 125
    assert done.stderr == b"run: the service refuses the job: --cpu: must be a number between 0.01 and 64\n"


@pytest.mark.stateless
def test_an_id_that_is_taken_is_refused(running: Service) -> None:
    run(running, "--id", "taken", "alpine", "true")

    done = run(running, "--id", "taken", "alpine", "true")

    assert (done.returncode, done.stderr) == (125, b"run: there is already a job with the id taken\n")


@pytest.mark.stateless
def test_a_detached_job_is_looked_at_later(running: Service) -> None:
    # Given a job that runs until it is cancelled
    detached = run(running, "--detach", "--id", "later", "--meta", "team=cli", "alpine", "echo one; echo two; sleep 100")
    assert detached.stdout == b"later\n"
    running.wait_status("later", "running")
    wait_for(lambda: len(running.get_log("later")) == 2, what="the log")

    # I expect each command to show it
    assert run(running, "logs", "later").stdout == b"one\ntwo\n"
    assert run(running, "logs", "--tail", "1", "later").stdout == b"two\n"
    assert re.search(rb"^Status +running$", run(running, "status", "later").stdout, re.MULTILINE)
    assert json.loads(run(running, "status", "--json", "later").stdout)["status"] == "running"
    assert re.search(rb"^later +running ", run(running, "list", "--meta", "team=cli").stdout, re.MULTILINE)
    assert run(running, "cancel", "later").stdout == b"later: cancelled\n"
    assert running.get_job("later")["status"] == "cancelled"
    assert run(running, "list", "--json", "--status", "running", "--meta", "team=cli").stdout == b""


@pytest.mark.stateless
def test_a_job_that_does_not_exist_does_not_keep_others_from_being_cancelled(running: Service) -> None:
    run(running, "--detach", "--id", "exists", "alpine", "sleep 100")

    done = run(running, "cancel", "missing", "exists")

    assert (done.returncode, done.stdout) == (125, b"exists: cancelled\n")
    assert done.stderr.startswith(b"missing: ")


@pytest.mark.stateless
def test_ctrl_c_cancels_the_job(running: Service) -> None:
    # Given a job whose log is on a terminal
    with terminal(running, "--id", "interrupted", "alpine", "echo started; sleep 100") as command:
        command.read_until(rb"started\r\n")

        # When Ctrl-C is pressed
        command.press_ctrl_c()

        # I expect the command to say what it does, the job to be cancelled, and the exit code of an interrupted command
        command.read_until(rb"cancelling job interrupted")
        assert command.exit_code() == 130
    assert running.get_job("interrupted")["status"] == "cancelled"


@pytest.mark.stateless
def test_a_second_ctrl_c_leaves_at_once(running: Service) -> None:
    # Given a job that does not end when it is told to
    with terminal(running, "--id", "stubborn", "alpine", "trap '' TERM; echo started; while :; do sleep 1; done") as command:
        command.read_until(rb"started\r\n")

        # When Ctrl-C is pressed twice
        command.press_ctrl_c()
        command.read_until(rb"cancelling job stubborn")
        wait_for(lambda: running.get_job("stubborn")["status"] == "cancelled", what="the cancel")
        command.press_ctrl_c()

        # I expect the command to leave before the job has ended
        command.read_until(rb"no longer waiting: job stubborn may still be running")
        assert command.exit_code() == 130
        assert "completedAt" not in running.get_job("stubborn")


@pytest.mark.stateless
def test_sigterm_cancels_the_job(running: Service) -> None:
    with started(running, "--follow", "--id", "terminated", "alpine", "echo started; sleep 100") as command:
        assert command.stdout
        assert command.stdout.readline() == b"started\n"

        command.terminate()

        assert command.wait(RUN_SECONDS) == 143
    assert running.get_job("terminated")["status"] == "cancelled"


@pytest.mark.stateless
def test_a_signal_cancels_the_job_while_its_output_is_not_read(running: Service) -> None:
    # Given a command that writes more into a pipe than fits
    with started(running, "--follow", "--id", "unread", "alpine", "seq 1 20000; sleep 100") as command:
        assert command.stdout
        wait_for(partial(has_unread, command.stdout, 32_768), what="the pipe to fill")

        # When it gets a signal
        command.terminate()

        # I expect the job to be cancelled, and the rest of its log afterwards
        running.wait_status("unread", "cancelled")
        printed, _ = command.communicate(timeout=RUN_SECONDS)
    assert printed.decode() == "".join(f"{number}\n" for number in range(1, 20_001))
    assert command.returncode == 143


@pytest.mark.stateless
def test_a_job_whose_output_has_no_reader_is_cancelled(running: Service) -> None:
    with started(running, "--follow", "--id", "no-reader", "alpine", "while echo more; do sleep 0.1; done") as command:
        assert command.stdout
        assert command.stdout.readline() == b"more\n"

        command.stdout.close()

        assert command.wait(RUN_SECONDS) == 128 + signal.SIGPIPE
    assert running.wait_decided("no-reader")["status"] == "cancelled"


@pytest.fixture
def own_service(tmp_path: Path, migrated_database: Path | None) -> Iterator[tuple[Service, str]]:
    """A service that a test may restart, and the name of its process that answers requests."""
    if os.environ.get("DATABASE_URL"):
        with installation(tmp_path) as production:
            production.start_all()
            production.wait_until_ready()
            yield production, "web"
        return
    with embedded_installation(tmp_path, migrated_database) as embedded:
        embedded.wait_until_ready()
        yield embedded, "embedded"


def test_a_followed_log_survives_a_restart_of_the_service(own_service: tuple[Service, str]) -> None:
    # Given a command that follows a job
    service, name = own_service
    script = "for i in $(seq 1 80); do echo $i; sleep 0.1; done; exit 5"
    with started(service, "--follow", "--id", "followed", "alpine", script) as command:
        assert command.stdout
        assert command.stderr
        first = command.stdout.readline()

        # When the service is killed, and started again after a while
        service.kill(name)
        while b"waiting for the service" not in (line := command.stderr.readline()):
            assert line
        service.restart(name)
        rest, said = command.communicate(timeout=RUN_SECONDS)

    # I expect every line once, the exit code, and one message more
    assert (first + rest).decode() == "".join(f"{number}\n" for number in range(1, 81))
    assert command.returncode == 5
    assert b"waiting for the service" not in said
    assert b"the service is back" in said


@pytest.mark.stateless
def test_no_secret_is_printed(running: Service) -> None:
    done = run(
        running,
        # an address that the service refuses, since downloads from one that does not answer are tried for a while
        *("--json", "--env", "TOKEN=the-secret", "--input", "a=https://10.0.0.1/a?sig=the-secret", "alpine", "true"),
        ORCHESTRATOR_API_KEY="the-secret",
    )

    assert done.returncode == 125
    assert b"the-secret" not in done.stdout + done.stderr
