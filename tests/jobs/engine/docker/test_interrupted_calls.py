"""Engines that accept a request and send nothing: an interrupt ends every call that waits for them."""

import base64
import itertools
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from jobs.engine import container_init
from jobs.engine.docker import DockerEngine
from jobs.engine.protocol import Engine
from jobs.errors import EngineSilent, Interrupted
from jobs.interrupt import Interrupt
from tests.helpers.certificates import write_certificates
from tests.helpers.engines import Bench
from tests.helpers.waiting import wait_for
from tests.jobs.engine.docker.scripted_daemon import ScriptedDaemon, answer, chunked, frame, inspected

pytestmark = pytest.mark.stateless

AT_ONCE = 5.0  # seconds; every time-out of the engine's calls is longer
ENDED = {"started": "2026-01-01T00:00:01Z", "finished": "2026-01-01T00:00:03Z"}
A_DIRECTORY = base64.b64encode(json.dumps({"size": 0, "mode": 1 << 31}).encode())


class BackgroundCall:
    """A call that runs in a thread of its own."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self._error = error

    def is_in(self, *functions: str) -> bool:
        """Return whether the innermost frame of the thread is one of these functions."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return frame is not None and frame.f_code.co_name in functions

    def error(self) -> BaseException | None:
        self._thread.join(AT_ONCE)
        assert not self._thread.is_alive(), "the call goes on"
        return self._error


def follow(engine: Engine, interrupt: Interrupt) -> None:
    with engine.logs("job", skip=0, follow=True, interrupt=interrupt) as frames:
        list(frames)


def get_file(engine: Engine) -> None:
    with engine.get("job", "/out") as chunks:
        list(chunks)


def endless_tar() -> Iterator[bytes]:
    yield from itertools.repeat(b"\0" * 65536)


# Keyed by the part of the request line that the engine does not answer.
CALLS: dict[str, Callable[[Engine, Interrupt], object]] = {
    "GET /v1.41/info": lambda engine, _: engine.info(),
    "/networks/create": lambda engine, _: engine.create_network("n", {}),
    "GET /v1.41/networks/": lambda engine, _: engine.find_network("n"),
    "DELETE /v1.41/networks/": lambda engine, _: engine.remove_network("n"),
    "/images/alpine": lambda engine, interrupt: engine.ensure_image("alpine", "missing", 60, interrupt),
    "/images/create": lambda engine, interrupt: engine.ensure_image("alpine", "always", 60, interrupt),
    "/containers/create": lambda engine, _: engine.create(Bench().spec()),
    "/rename": lambda engine, _: engine.rename("job", "other"),
    "/start": lambda engine, _: engine.start("job"),
    "/containers/job/json": lambda engine, _: engine.inspect("job"),
    "/containers/ended/json": lambda engine, _: engine.inspect("ended"),
    "GET /v1.41/networks?": lambda engine, _: engine.inspect("ended"),  # asks when the engine began
    "/wait": lambda engine, interrupt: engine.wait("job", interrupt),
    "/stop": lambda engine, _: engine.stop("job", 10),
    "DELETE /v1.41/containers/": lambda engine, _: engine.remove("job"),
    "/containers/json": lambda engine, _: engine.list({}),
    "/logs": follow,
    "HEAD ": lambda engine, _: engine.stat("job", "/"),
    "/changes": lambda engine, _: engine.added_directories("job", ["/"]),
    "PUT ": lambda engine, _: engine.put("job", "/", endless_tar()),
    "GET /v1.41/containers/job/archive": lambda engine, _: get_file(engine),
}


@pytest.fixture
def answering(daemon: ScriptedDaemon) -> ScriptedDaemon:
    """A daemon that answers all requests that precede the tested one."""
    daemon.answers |= {
        "HEAD ": b"HTTP/1.1 200 X\r\nX-Docker-Container-Path-Stat: %s\r\nConnection: close\r\n\r\n" % A_DIRECTORY,
        "/containers/job/json": inspected(status="created"),
        "/containers/ended/json": inspected(**ENDED),
        "/": answer(200, {}),
    }
    return daemon


@pytest.mark.parametrize("about", ["GET /version", *CALLS])
def test_an_interrupt_ends_an_unanswered_call(answering: ScriptedDaemon, about: str) -> None:
    # Given a call that waits for the first byte of the engine's answer
    answering.unanswered = (about,)
    interrupt = Interrupt()
    engine = DockerEngine(answering.host).bound(interrupt)
    call = BackgroundCall(lambda: CALLS.get(about, CALLS["GET /v1.41/info"])(engine, interrupt))
    wait_for(lambda: any(about in line for line in answering.request_lines), 10, "the request")

    # When
    interrupt.wake()

    # I expect
    assert isinstance(call.error(), Interrupted)


@pytest.mark.parametrize("begun", [answer(200, {})[:-1], chunked(b'{"', end=False)])
def test_an_interrupt_ends_a_call_whose_answer_stalls(answering: ScriptedDaemon, begun: bytes) -> None:
    # Given an answer that stops in the middle
    answering.close_after_answer = False
    answering.answers = {"/info": begun} | answering.answers
    interrupt = Interrupt()
    engine = DockerEngine(answering.host).bound(interrupt)
    call = BackgroundCall(engine.info)
    wait_for(lambda: any("/info" in line for line in answering.request_lines), 10, "the request")

    # When
    interrupt.wake()

    # I expect
    assert isinstance(call.error(), Interrupted)


def test_no_call_is_made_while_the_interrupt_is_set(answering: ScriptedDaemon) -> None:
    interrupt = Interrupt()
    engine = DockerEngine(answering.host).bound(interrupt)
    interrupt.wake()

    with pytest.raises(Interrupted):
        engine.stop("job", 10)

    assert answering.request_lines == []


def test_an_interrupt_ends_only_the_calls_bound_to_it(answering: ScriptedDaemon) -> None:
    # Given two callers of a silent engine
    answering.unanswered = ("/info",)
    shared = DockerEngine(answering.host)
    interrupts = [Interrupt(), Interrupt()]
    calls = [BackgroundCall(shared.bound(interrupt).info) for interrupt in interrupts]
    wait_for(lambda: sum("/info" in line for line in answering.request_lines) == 2, 10, "the requests")

    # When one is interrupted
    interrupts[0].wake()
    assert isinstance(calls[0].error(), Interrupted)

    # I expect the other to keep waiting
    assert calls[1]._thread.is_alive()
    interrupts[1].wake()
    assert isinstance(calls[1].error(), Interrupted)


def test_an_interrupt_ends_a_wait_for_another_check_of_the_init(answering: ScriptedDaemon) -> None:
    # Given two callers that need the init, and an engine that is silent when the first one checks it
    answering.unanswered = (container_init.COMMAND.replace("/", "%2F"),)
    answering.answers["/version"] = answer(200, {"ApiVersion": "1.41", "Arch": "amd64"})
    answering.answers = {"/containers/orchestrator-init": answer(200, {"Id": "0"}), **answering.answers}
    shared = DockerEngine(answering.host)
    interrupts = [Interrupt(), Interrupt()]
    first = BackgroundCall(lambda: shared.bound(interrupts[0]).create(Bench().spec()))
    wait_for(lambda: any("/archive" in line for line in answering.request_lines), 10, "the request")
    second = BackgroundCall(lambda: shared.bound(interrupts[1]).create(Bench().spec()))
    wait_for(lambda: second.is_in("holding"), 10, "the second one to wait")

    # When the second one is interrupted
    interrupts[1].wake()

    # I expect it to end, and the first one to keep waiting
    assert isinstance(second.error(), Interrupted)
    assert first._thread.is_alive()
    interrupts[0].wake()
    assert isinstance(first.error(), Interrupted)


def test_a_late_interrupt_does_not_break_a_kept_connection(answering: ScriptedDaemon) -> None:
    # Given an engine that keeps connections open
    answering.close_after_answer = False
    answering.answers["/"] = answer(200, {}).replace(b"close", b"keep-alive")
    shared = DockerEngine(answering.host)
    shared.list({})

    # When the interrupt is set between the end of an answer and the end of its call
    shared.bound(_SetAtTheEnd()).stop("job", 1)

    # I expect the connection to be unaffected
    assert [_is_quiet(kept) for kept in kept_sockets(shared)] == [True]


class _SetAtTheEnd(Interrupt):
    @contextmanager
    def waking(self, waker: Callable[[], object]) -> Iterator[None]:
        with super().waking(waker):
            yield
            self.wake()


def kept_sockets(engine: DockerEngine) -> list[socket.socket]:
    """Return the connections that the engine keeps open."""
    queue = engine._client._session.get_adapter("http+docker://")._pool.pool.queue
    return [connection.sock for connection in queue if connection and connection.sock]


def _is_quiet(sock: socket.socket) -> bool:
    """Return whether neither a byte nor the end of the stream was received."""
    sock.setblocking(False)
    try:
        return sock.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True


def test_a_log_with_late_headers_is_read(answering: ScriptedDaemon) -> None:
    # Given an engine that sends the headers of a followed log only with its first line, as Podman does
    answering.answers = {"/logs": chunked(frame(b"one\n"))} | answering.answers
    engine = DockerEngine(answering.host)
    engine.list({})
    answering.may_answer.clear()
    lines: list[bytes] = []

    def read() -> None:
        with engine.logs("job", skip=0, follow=True, interrupt=Interrupt()) as frames:
            lines.extend(data for some in frames if some for data in some.data)

    call = BackgroundCall(read)
    wait_for(lambda: any("/logs" in line for line in answering.request_lines), 10, "the request")

    # When the line is printed
    answering.may_answer.set()

    # I expect
    assert call.error() is None
    assert lines == [b"one\n"]


def test_an_engine_is_silent_after_max_silence(answering: ScriptedDaemon) -> None:
    answering.unanswered = ("/json",)

    with pytest.raises(EngineSilent):
        DockerEngine(answering.host).bound(Interrupt(), max_silence=0.2).inspect("job")


# -- over TCP ------------------------------------------------------------------------------------------------


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as taken:

        def take() -> None:
            with suppress(OSError):
                while True:
                    taken.enter_context(listener.accept()[0])

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()  # it may just have accepted a connection, which has to be closed


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port on which connecting blocks, because the listener's queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as queue:
        address = listener.getsockname()
        while True:
            client = queue.enter_context(socket.socket())
            client.settimeout(0.3)
            try:
                client.connect(address)
            except TimeoutError:
                break
        yield address[1]


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("port", ["silent_port", "full_port"])
def test_an_interrupt_ends_a_call_to_an_unresponsive_host(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tls: bool, port: str
) -> None:
    # Given a call that waits for its connection, for the TLS handshake, or for the answer
    if tls:
        write_certificates(tmp_path)
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    interrupt = Interrupt()
    engine = DockerEngine(f"tcp://127.0.0.1:{request.getfixturevalue(port)}").bound(interrupt)
    call = BackgroundCall(engine.info)
    wait_for(lambda: call.is_in("_new_conn", "do_handshake", "readinto"), 10, "the call to block")

    # When
    interrupt.wake()

    # I expect
    assert isinstance(call.error(), Interrupted)
