"""Peers of the mover that are not the worker, or break off."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from jobs.engine.protocol import Stat
from jobs.errors import EngineRefused, EngineUnavailable
from tests.helpers.engines import tar_of
from tests.helpers.waiting import wait_for
from tests.jobs.engine.kubernetes.files.running_mover import RunningMover, read_to_end, running_mover, wait_until_listening

pytestmark = [pytest.mark.stateless, pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Authorization: ",
        "Authorization: Bearer",
        "Authorization: Bearer " + "0" * 64,
        "Authorization: Bearer {token}0",
        "X: {token}",
    ],
    ids=["none", "empty", "short", "wrong", "longer", "elsewhere"],
)
@pytest.mark.parametrize("line", ["GET /stat/workspace", "GET /tar/workspace", "PUT /tar/workspace", "POST /finish", "nonsense"])
def test_without_the_token_nothing_is_done(inputs: RunningMover, header: str, line: str) -> None:
    lines = [f"{line} HTTP/1.1", header.format(token=inputs.tokens.asked)] if header else [f"{line} HTTP/1.1"]

    answer = inputs.raw(("\r\n".join(lines) + "\r\n\r\n").encode())

    assert answer.startswith(b"HTTP/1.1 401 ")
    assert inputs.tokens.answered.encode() not in answer
    assert inputs.process.poll() is None


def test_a_worker_with_another_token_is_refused(inputs: RunningMover) -> None:
    with pytest.raises(EngineUnavailable, match="does not know the token"):
        inputs.client(asked="0" * 64).look("/workspace")


def test_a_process_that_has_taken_the_port_is_not_believed(inputs: RunningMover) -> None:
    with pytest.raises(EngineUnavailable, match="something else answers"):
        inputs.client(answered="0" * 64).look("/workspace")


def test_names_of_headers_may_be_written_in_any_case(inputs: RunningMover) -> None:
    request = f"GET /stat/workspace HTTP/1.1\r\nHost: x\r\nAUTHORIZATION:   Bearer {inputs.tokens.asked}\r\n\r\n"

    assert inputs.raw(request.encode()).startswith(b"HTTP/1.1 200 ")


def test_an_endless_head_is_refused(inputs: RunningMover) -> None:
    with inputs.connection() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 3000)

        assert read_to_end(connection).startswith(b"HTTP/1.1 431 ")
    assert inputs.memory() < 4 * 1024**2


@pytest.mark.parametrize(
    "line",
    [
        "GET",
        "GET /",
        "GET /stat",
        "GET /stat/%",
        "GET /stat/%0",
        "GET /stat/%00",
        "GET /stat/%zz",
        "PATCH /tar/workspace",
        "GET stat",
        "POST /signal/9x",
    ],
)
def test_an_invalid_request_of_the_worker_is_answered(inputs: RunningMover, line: str) -> None:
    answer = inputs.raw(inputs.head(f"{line} HTTP/1.1"))

    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"5\r\nabc",
        b"x\r\n",
        b"-1\r\n",
        b"fffffffffffffffff\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"0" * 99,
        b"0\r\nX: y\r\n\r\n",
    ],
)
def test_an_invalid_body_is_refused(inputs: RunningMover, body: bytes) -> None:
    answer = inputs.raw(inputs.head("PUT /tar/workspace HTTP/1.1", "Transfer-Encoding: chunked") + body)

    assert answer.startswith(b"HTTP/1.1 400 ")


def test_slow_and_silent_peers_do_not_keep_the_worker_out(inputs: RunningMover) -> None:
    with ExitStack() as peers:
        # Given more peers than the mover serves at a time, which send nothing, or one byte
        for number in range(70):
            peer = peers.enter_context(inputs.connection())
            if number % 2:
                peer.sendall(b"G")

        # When the worker sends requests, I expect answers at once
        started = time.monotonic()
        for _ in range(20):
            assert inputs.files().stat("/workspace") is not None
        assert time.monotonic() - started < 5


def test_a_transfer_is_not_given_up_for_unknown_peers(inputs: RunningMover) -> None:
    # Given a transfer of which the mover has read the token
    more = threading.Event()

    def chunks() -> Iterator[bytes]:
        archive = tar_of("file", bytes(10_000))
        yield archive[:5000]
        assert more.wait(20)
        yield archive[5000:]

    transfer = threading.Thread(target=lambda: inputs.files().put("/workspace", chunks()))
    transfer.start()
    wait_for(lambda: any(inputs.directory.iterdir()), what="the mover to unpack the file")

    # When more peers come than it talks to at once
    with ExitStack() as peers:
        for _ in range(70):
            peers.enter_context(inputs.connection())
        more.set()
        transfer.join(20)

    # I expect the transfer to go on
    assert (inputs.directory / "file").stat().st_size == 10_000


def test_a_peer_has_ten_seconds_for_its_request(inputs: RunningMover) -> None:
    with inputs.connection() as connection:
        started = time.monotonic()
        # Given a peer that sends a byte whenever the mover might lose patience
        received = b"unanswered"
        while received == b"unanswered" and time.monotonic() - started < 18:
            connection.settimeout(0.5)
            try:
                connection.sendall(b"G")
                received = connection.recv(1)
            except TimeoutError:
                continue
            except OSError:
                received = b""

        assert received == b""
        assert 9 < time.monotonic() - started < 16


def test_an_archive_that_is_broken_off_leaves_the_mover_ready(inputs: RunningMover) -> None:
    archive = tar_of("file", b"x" * 100_000)
    with inputs.connection() as connection:
        head = inputs.head("PUT /tar/workspace HTTP/1.1", "Transfer-Encoding: chunked")
        connection.sendall(head + b"%x\r\n" % len(archive) + archive[:50_000])
        wait_for(lambda: (inputs.directory / "file").exists())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closed by a reset

    inputs.files().put("/workspace", [tar_of("file", b"whole")])

    assert (inputs.directory / "file").read_bytes() == b"whole"


def test_an_answer_comes_although_more_is_sent(inputs: RunningMover) -> None:
    # Given an archive that is refused at its start
    left = iter(range(1000))
    with pytest.raises(EngineRefused, match="not a complete tar archive"):
        inputs.files().put("/workspace", (b"no archive" * 10_000 for _ in left))

    # I expect that no more of it was sent
    assert next(left, None) is not None


def test_an_archive_with_a_wrong_checksum_is_refused(inputs: RunningMover) -> None:
    archive = bytearray(tar_of("file", b"x"))
    archive[0:4] = b"fill"

    with pytest.raises(EngineRefused, match="not a complete tar archive"):
        inputs.files().put("/workspace", [bytes(archive)])

    assert list(inputs.directory.iterdir()) == []


def test_the_mover_cannot_be_looked_into(open_directory: Path) -> None:
    # Given a mover that a pod template lets run as the user of the job
    user = ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups")
    with running_mover(open_directory, prefix=user) as mover:
        wait_until_listening(mover)

        # When a process of the job reads its memory, I expect that it may not
        for name in ("mem", "maps", "environ", "root/etc/passwd"):
            done = subprocess.run([*user, "head", "-c1", f"/proc/{mover.process.pid}/{name}"], capture_output=True, check=False)
            assert (done.stdout, b"denied" in done.stderr) == (b"", True)


def test_a_job_that_has_taken_the_port_delays_its_outputs(tmp_path: Path) -> None:
    # Given a process of the job that has taken the port
    with closing(socket.create_server(("", 0))) as taken:
        port = taken.getsockname()[1]
        with running_mover(tmp_path, role="outputs", port=port) as mover:
            (mover.directory / "file").write_text("x")
            with pytest.raises(EngineUnavailable):
                mover.files(short_call=0.3, long_call=0.3).stat("/workspace/file")
            assert mover.process.poll() is None

            # When the job ends, I expect its outputs
            taken.close()
            assert mover.files().stat("/workspace/file") == Stat(1, "file")
