"""What the Docker engine's client makes of an engine that is away, dies in the middle, or answers nonsense."""

import datetime
import ipaddress
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.engine.docker import DockerEngine, init
from jobs.engine.docker.transport import EngineClient
from jobs.engine.protocol import Frame, RunSpec
from jobs.engine.registry_errors import explain
from jobs.errors import (
    ContainerConflict,
    ContainerNotFound,
    EngineInTrouble,
    EngineRefused,
    EngineUnavailable,
    ImageUnavailable,
    Interrupted,
    JobError,
    NetworkMissing,
    PathNotFound,
    StartFailed,
    StartLost,
    StartRefused,
)
from jobs.interrupt import Interrupt
from orchestrator_site.base.intervals import EngineIntervals
from tests.helpers.engines import DockerBench, FakeBench, shell, tar_of, untar
from tests.jobs.engine.test_engine_images import Watched

pytestmark = pytest.mark.stateless

NEVER = "0001-01-01T00:00:00Z"


def inspected(*, started: str = NEVER, finished: str = NEVER, exit_code: int = 0, status: str = "exited") -> bytes:
    state = {
        "Status": status,
        "Running": False,
        "StartedAt": started,
        "FinishedAt": finished,
        "ExitCode": exit_code,
        "OOMKilled": False,
        "Error": "",
    }
    created = "2026-01-01T00:00:00Z"
    return answer(
        200,
        {
            "Id": "0",
            "Name": "/job",
            "Created": created,
            "State": state,
            "Config": {"Labels": None, "Entrypoint": ["x", "/x"], "WorkingDir": "/workspace"},
            "HostConfig": {"NetworkMode": "orc-1"},
        },
    )


class ScriptedDaemon:
    """A unix socket that answers whoever asks with bytes, chosen by the first path that the request's line contains."""

    def __init__(self, path: Path) -> None:
        self.host = f"unix://{path}"
        self.answers: dict[str, bytes | Callable[[], bytes]] = {
            "/version": answer(200, {"ApiVersion": "1.41"}),
            "/networks": answer(200, []),
        }
        self.asked: list[str] = []  # each request's first line
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.close_after_answer = True
        self.silent_about: tuple[str, ...] = ()  # parts of the first lines of requests that it never answers
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(50)
        self._open: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                if not (received := connection.recv(65536)):
                    connection.close()  # it may have come too late for `close` to know of it
                    return
                request += received
            line = request.partition(b"\r\n")[0].decode()
            self.asked.append(line)
            self.may_answer.wait()
            if any(part in line for part in self.silent_about):
                return  # the connection stays open, and what more comes stays unread
            said = next(said for path, said in self.answers.items() if path in line)
            connection.sendall(said if isinstance(said, bytes) else said())
            if self.close_after_answer:
                connection.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """Take no new connection."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self) -> None:
        self.may_answer.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()  # it may be about to take one more
        for connection in [self._listener, *self._open]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def answer(status: int, body: object) -> bytes:
    content = json.dumps(body).encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content


def chunked(*chunks: bytes, end: bool = True) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks if chunk)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + (b"0\r\n\r\n" if end else b"")


def frame(data: bytes, kind: int = 1, moment: bytes = b"2026-01-01T00:00:00.000000000Z") -> bytes:
    payload = moment + b" " + data
    return bytes([kind, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[ScriptedDaemon]:
    with closing(ScriptedDaemon(tmp_path / "docker.sock")) as daemon:
        yield daemon


def read(engine: DockerEngine, skip: int = 0, *, follow: bool = False) -> list[Frame | None]:
    with engine.logs("job", skip=skip, follow=follow, interrupt=Interrupt()) as frames:
        return list(frames)


# -- no engine ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["unix:///nonexistent/docker.sock", "tcp://127.0.0.1:9"])
def test_engine_that_is_away_is_unavailable_and_may_come_later(host: str) -> None:
    engine = DockerEngine(host)
    calls: list[Callable[[], object]] = [
        engine.info,
        lambda: engine.inspect("job"),
        lambda: engine.start("job"),
        lambda: engine.wait("job", Interrupt()),
        lambda: engine.put("job", "/", [b""]),
        lambda: engine.ensure_image("alpine", "missing", 10, Interrupt()),
        lambda: read(engine),
    ]

    for call in calls:
        with pytest.raises(EngineUnavailable, match="does not answer"):
            call()


@pytest.mark.parametrize("host", ["nonsense://x", "tcp://", "unix"])
def test_address_that_cannot_be_read_is_told_at_once(host: str) -> None:
    with pytest.raises(EngineRefused, match="DOCKER_HOST"):
        DockerEngine(host)


def test_engine_that_hangs_up_is_unavailable(daemon: ScriptedDaemon) -> None:
    daemon.answers["/"] = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"

    with pytest.raises(EngineUnavailable):
        DockerEngine(daemon.host).info()


# -- logs ----------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    lines=st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=40)), max_size=8),
    cuts=st.lists(st.integers(1, 50), min_size=1, max_size=6),
    skip=st.integers(0, 10),
    follow=st.booleans(),
)
def test_frames_do_not_depend_on_how_the_stream_is_cut(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[int, bytes]], cuts: list[int], skip: int, follow: bool
) -> None:
    stream = b"".join(frame(data, kind) for kind, data in lines)
    chunks, position, number = [], 0, 0
    while position < len(stream):
        chunks.append(stream[position : position + cuts[number % len(cuts)]])
        position, number = position + cuts[number % len(cuts)], number + 1
    with closing(ScriptedDaemon(tmp_path_factory.mktemp("daemon") / "docker.sock")) as daemon:
        daemon.answers["/logs"] = chunked(*chunks)

        frames = read(DockerEngine(daemon.host), skip, follow=follow)

    named = [("stdout" if kind == 1 else "stderr", data) for kind, data in lines]
    assert [(one.stream, one.data) for one in frames if one] == named[skip:]


@pytest.mark.parametrize(
    "body",
    [
        chunked(frame(b"one\n"), end=False),  # between frames: the engine died, the process may live
        chunked(frame(b"one\n"), frame(b"two\n")[:20]),  # a proper end in the middle of a frame
        chunked(frame(b"one\n"), frame(b"two\n")[:5]),
        chunked(frame(b"one\n"), frame(b"two\n")[:8]),
        chunked(frame(b"one\n")) [:-3],
        chunked(frame(b"one\n"), end=False) + b"20\r\nabc",
        chunked(frame(b"one\n"), end=False) + b"nonsense\r\n",
        chunked(frame(b"one\n"), end=False) + b"1" * 5000,
    ],
)  # fmt: skip
def test_log_that_breaks_off_is_not_taken_for_its_end(daemon: ScriptedDaemon, body: bytes) -> None:
    daemon.answers["/logs"] = body
    seen = []

    def follow() -> None:
        with DockerEngine(daemon.host).logs("job", skip=0, follow=True, interrupt=Interrupt()) as frames:
            seen.extend(one.data for one in frames if one)

    with pytest.raises(EngineUnavailable):
        follow()
    assert seen in ([b"one\n"], [])


def test_engine_that_cannot_read_its_log_says_why(daemon: ScriptedDaemon) -> None:
    daemon.answers["/logs"] = chunked(frame(b"one\n"), bytes([3, 0, 0, 0, 0, 0, 0, 4]) + b"torn")

    with pytest.raises(EngineRefused, match="torn"):
        read(DockerEngine(daemon.host))


@pytest.mark.parametrize("header", [bytes([1, 0, 0, 0, 255, 255, 255, 255]), b"HTTP/1.1"])
def test_nonsense_for_a_frame_takes_no_memory(daemon: ScriptedDaemon, header: bytes) -> None:
    daemon.answers["/logs"] = chunked(header, b"x" * 1000)

    with pytest.raises(EngineRefused, match="not a sequence of frames"):
        read(DockerEngine(daemon.host))


def test_empty_log_with_a_length_is_empty(daemon: ScriptedDaemon) -> None:
    daemon.answers["/logs"] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    assert read(DockerEngine(daemon.host), follow=True) == []


def test_short_log_with_a_length_is_read(daemon: ScriptedDaemon) -> None:
    body = frame(b"one\n")
    daemon.answers["/logs"] = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    assert [one.data for one in read(DockerEngine(daemon.host)) if one] == [b"one\n"]


# -- waiting ---------------------------------------------------------------------------------------------------


def test_wait_that_breaks_off_does_not_mean_that_it_ended(daemon: ScriptedDaemon) -> None:
    daemon.answers["/wait"] = chunked(end=False)

    with pytest.raises(EngineUnavailable):
        DockerEngine(daemon.host).wait("job", Interrupt())


def test_wait_that_the_engine_gives_up_is_unavailable(daemon: ScriptedDaemon) -> None:
    daemon.answers["/wait"] = chunked(b'{"StatusCode": 0, "Error": {"Message": "containerd is away"}}')

    with pytest.raises(EngineUnavailable, match="containerd is away"):
        DockerEngine(daemon.host).wait("job", Interrupt())


# -- what an error answer means ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (304, "", ContainerConflict),
        (400, 'OCI runtime create failed: container_linux.go:380: starting container process caused: exec: "x": executable file '
         "not found in $PATH: unknown", StartFailed),
        (500, "unable to find user x: no matching entries in passwd file", StartFailed),
        (500, "id already in use", StartLost),
        (400, 'failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: '
         'namespace {"time" ""} does not exist: unknown', StartRefused),
        (500, 'fork/exec /usr/sbin/runc: no such file or directory: unknown', StartRefused),
        (400, 'OCI runtime create failed: exec: "/sbin/docker-init": stat /sbin/docker-init: no such file or directory',
         StartRefused),
        (400, 'OCI runtime create failed: exec: "/dev/orchestrator/init": permission denied: unknown', StartRefused),
        (500, "open /sys/fs/cgroup/memory/docker: permission denied", StartRefused),
        (500, "no such words so far", StartRefused),
        (400, "OCI runtime create failed: unable to retrieve OCI runtime error (open /run/containerd/x/log.json: no such file or "
         "directory): /usr/bin/runc did not terminate successfully: exit status 1: no output: unknown", StartRefused),
        (400, 'OCI runtime create failed: exec /sbin/docker-init: argument list too long: unknown', StartFailed),
        (400, 'runc create failed: unable to start container process: exec: "/x": permission denied: unknown', StartFailed),
        (400, 'chdir to cwd ("/workspace") set in config.json failed: permission denied: unknown', StartFailed),
        (400, "container init was OOM-killed (memory limit too low?): unknown", StartFailed),
        (500, 'connection error: desc = "transport: error while dialing: dial unix:///run/containerd.sock"', EngineUnavailable),
        (500, "mkdir /var/lib/docker/x: no space left on device", EngineUnavailable),
        (409, "container is marked for removal and cannot be started", ContainerConflict),
    ],
)  # fmt: skip
def test_start_errors_say_whose_fault_it_is(daemon: ScriptedDaemon, status: int, message: str, expected: type[JobError]) -> None:
    daemon.answers["/json"] = inspected()
    daemon.answers["/start"] = answer(status, {"message": message}) if status != 304 else b"HTTP/1.1 304 X\r\n\r\n"

    with pytest.raises(expected) as caught:
        DockerEngine(daemon.host).start("job")

    assert "container_linux.go" not in str(caught.value)
    assert not str(caught.value).endswith("unknown")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "network orc-1 not found"),
        (500, "failed to set up container networking: network orc-1 not found"),
        (500, "no such sandbox"),
    ],
)
@pytest.mark.parametrize("call", ["/start", "/containers/create"])
def test_start_and_create_that_fail_without_their_network_say_so_whatever_the_words(
    daemon: ScriptedDaemon, fake_bench: FakeBench, status: int, message: str, call: str
) -> None:
    daemon.answers |= {
        "/networks": answer(404, {"message": "no"}),
        "/json": inspected(),
        call: answer(status, {"message": message}),
    }
    engine = DockerEngine(daemon.host)

    with pytest.raises(NetworkMissing):
        engine.start("job") if call == "/start" else engine.create(fake_bench.spec(network="orc-1"))


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "invalid reference", EngineRefused),
        (404, "No such image: x:1", ImageUnavailable),
        (500, "Cannot mkdir: /bin/sh is not a directory", EngineRefused),
        (500, "write /data/overlay2/x: no space left on device", EngineUnavailable),
        (500, "error creating overlay mount to /x: invalid argument", StartRefused),
        (503, "shutting down", EngineUnavailable),
    ],
)
def test_create_errors_say_whose_fault_it_is(
    daemon: ScriptedDaemon, fake_bench: FakeBench, status: int, message: str, expected: type[JobError]
) -> None:
    daemon.answers["/create"] = answer(status, {"message": message})
    daemon.answers["/json"] = inspected(started="2026-01-01T00:00:01Z")

    with pytest.raises(expected) as caught:
        DockerEngine(daemon.host).create(fake_bench.spec())

    if not issubclass(expected, EngineUnavailable):
        assert message not in str(caught.value)


def test_name_that_is_taken_again_is_a_conflict(daemon: ScriptedDaemon, fake_bench: FakeBench) -> None:
    # Given a container of that name that never started, and another as soon as it is removed
    daemon.answers |= {
        "/create": answer(409, {"message": "Conflict. The name is in use"}),
        "/json": inspected(),
        "DELETE": b"HTTP/1.1 204 X\r\n\r\n",
    }

    with pytest.raises(ContainerConflict):
        DockerEngine(daemon.host).create(fake_bench.spec())


BEFORE, AFTER, LATER = "2026-01-01T00:00:02.5Z", "2026-01-01T01:00:03.5+01:00", "2026-01-01T00:00:04Z"


def networks(began: str | None) -> list[dict[str, str]]:
    return [{"Name": "bridge", "Created": began}] if began else []


@pytest.mark.parametrize(
    ("began", "clock", "live_restore", "exit_code", "lost"),
    [
        pytest.param(BEFORE, LATER, False, 143, False, id="the engine began before the process ended"),
        pytest.param(AFTER, LATER, False, 143, True, id="the engine began after it"),
        pytest.param(AFTER, LATER, True, 143, False, id="the engine began after it, and ends no process"),
        pytest.param(AFTER, BEFORE, False, 143, False, id="the engine's clock was put back"),
        pytest.param(None, LATER, False, 143, False, id="the engine does not tell when it began"),
    ],
)
def test_process_is_lost_where_it_had_ended_when_the_engine_began(
    daemon: ScriptedDaemon, began: str | None, clock: str, live_restore: bool, exit_code: int, lost: bool
) -> None:
    daemon.answers |= {
        "/containers/job/json": inspected(started="2026-01-01T00:00:01Z", finished="2026-01-01T00:00:03Z", exit_code=exit_code),
        "/networks": answer(200, [{"Name": "my-bridge", "Created": LATER}, *networks(began)]),
        "/info": answer(200, {"SystemTime": clock, "LiveRestoreEnabled": live_restore}),
    }

    seen = DockerEngine(daemon.host).inspect("job")

    assert (seen.exit_code, seen.lost) == (exit_code, lost)


@pytest.mark.parametrize("told", [False, True])
def test_process_without_a_trace_is_lost_where_the_engine_does_not_tell_of_its_end(daemon: ScriptedDaemon, told: bool) -> None:
    # Under live-restore with other containers running: the engine's start cannot be told.
    other, end = ({"Type": "container", "Action": "die", "Actor": {"ID": name}} for name in ("1", "0"))
    events = [other, end, other] if told else [other]
    daemon.answers |= {
        "/containers/job/json": inspected(started="2026-01-01T00:00:01Z", finished="2026-01-01T00:00:03Z", exit_code=255),
        "/networks": answer(200, networks(BEFORE)),
        "/info": answer(200, {"SystemTime": LATER, "LiveRestoreEnabled": True}),
        "/events": chunked(*(json.dumps(event).encode() + b"\n" for event in events)),
    }

    assert DockerEngine(daemon.host).inspect("job").lost is not told


def test_process_that_an_earlier_engine_began_to_start_has_ended_where_it_has_an_end(daemon: ScriptedDaemon) -> None:
    # dockerd was killed before it noted the start, found the process alive when it was back, and saw its end.
    daemon.answers |= {
        "/containers/job/json": inspected(finished="2026-01-01T00:00:03Z", exit_code=9, status="created"),
        "/networks": answer(200, networks(BEFORE)),
    }

    engine = DockerEngine(daemon.host)
    seen = engine.inspect("job")

    assert (seen.phase, seen.exit_code, seen.started_at, seen.lost) == ("ended", 9, None, False)
    with pytest.raises(ContainerConflict):
        engine.start("job")


@pytest.mark.parametrize("status", ["removing", "dead"])
def test_container_that_somebody_removes_is_gone_before_it_is(daemon: ScriptedDaemon, status: str) -> None:
    # Docker's own `rm --force` kills the process first: for a moment the container says that it ended with 137.
    daemon.answers["/json"] = inspected(
        started="2026-01-01T00:00:01Z", finished="2026-01-01T00:00:03Z", exit_code=137, status=status
    )

    with pytest.raises(ContainerNotFound):
        DockerEngine(daemon.host).inspect("job")


def test_engine_that_cannot_tell_when_it_began_is_to_be_asked_again(daemon: ScriptedDaemon) -> None:
    daemon.answers |= {
        "/containers/job/json": inspected(started="2026-01-01T00:00:01Z", finished="2026-01-01T00:00:03Z"),
        "/networks": answer(500, {"message": "shutting down"}),
    }

    with pytest.raises(EngineUnavailable, match="shutting down"):
        DockerEngine(daemon.host).inspect("job")


def test_pull_that_breaks_off_says_nothing_about_the_image(daemon: ScriptedDaemon) -> None:
    daemon.answers["/json"] = answer(404, {"message": "No such image"})
    daemon.answers["/images/create"] = chunked(b'{"status": "Pulling"}\r\n', end=False)

    with pytest.raises(EngineUnavailable):
        pull(DockerEngine(daemon.host))


def pull(engine: DockerEngine) -> None:
    engine.ensure_image("alpine", "missing", 10, Interrupt())


ENGINES_OWN = [
    "failed to register layer: write /usr/lib/x.so: no space left on device",
    "failed to register layer: fork/exec /proc/self/exe: resource temporarily unavailable",
    "error creating temporary lease: rpc error: code = Unavailable desc = transport is closing",
    'failed to dial "/run/containerd/containerd.sock": context deadline exceeded',
    "open /var/lib/docker/tmp/GetImageBlob1: too many open files",
    "context canceled",
    "daemon is shutting down",
]
REGISTRYS_OWN = [
    "pull access denied for containerd, repository does not exist or may require 'docker login'",
    "manifest for alpine:latest not found: manifest unknown",
    'Get "https://registry.example.com/v2/": dial tcp 192.0.2.1:443: connect: connection refused',
    'Get "https://registry.example.com/v2/": context deadline exceeded',
    "received unexpected HTTP status: 500 Internal Server Error: connection error",
    "toomanyrequests: You have reached your pull rate limit",
    "no matching manifest for linux/arm64/v8 in the manifest list entries",
    "unknown: no space left on device",
    'Head "https://registry.example.com/v2/library/alpine/manifests/1": no basic auth credentials',
]
in_every_way = pytest.mark.parametrize("status", [200, 404, 500])


def failed_pull(status: int, message: str) -> bytes:
    """As a failed answer, or as a line of progress after others."""
    if status != 200:
        return answer(status, {"message": message})
    line = {"errorDetail": {"message": message}, "error": message}
    return chunked(b'{"status": "Pulling"}\r\n', json.dumps(line).encode() + b"\r\n")


@in_every_way
@pytest.mark.parametrize("message", ENGINES_OWN)
def test_pull_on_an_engine_in_trouble_says_nothing_about_the_image(daemon: ScriptedDaemon, status: int, message: str) -> None:
    daemon.answers["/json"] = answer(404, {"message": "No such image"})
    daemon.answers["/images/create"] = failed_pull(status, message)

    with pytest.raises(EngineUnavailable) as caught:
        pull(DockerEngine(daemon.host))

    assert str(caught.value) == message


@in_every_way
@pytest.mark.parametrize("message", REGISTRYS_OWN)
def test_pull_that_the_registry_fails_is_an_unavailable_image_in_other_words(
    daemon: ScriptedDaemon, status: int, message: str
) -> None:
    daemon.answers["/json"] = answer(404, {"message": "No such image"})
    daemon.answers["/images/create"] = failed_pull(status, message)

    with pytest.raises(ImageUnavailable) as caught:
        pull(DockerEngine(daemon.host))

    assert str(caught.value) == explain(message, "alpine:latest")
    assert message not in str(caught.value)


def test_name_of_an_image_is_not_taken_for_trouble_of_the_engine(daemon: ScriptedDaemon) -> None:
    daemon.answers["/json"] = answer(404, {"message": "No such image"})
    told = 'Head "https://registry.example/v2/x/containerd.sock/manifests/1": no basic auth credentials'
    daemon.answers["/images/create"] = failed_pull(500, told)

    with pytest.raises(ImageUnavailable, match="credentials"):
        DockerEngine(daemon.host).ensure_image("registry.example/x/containerd.sock:1", "missing", 10, Interrupt())


def test_engine_in_trouble_is_told_to_all_who_share_the_pull_and_the_next_try_pulls_again(daemon: ScriptedDaemon) -> None:
    # Given an engine whose disk is full, and two jobs that wait for one pull
    engine = DockerEngine(daemon.host)
    daemon.answers["/json"] = answer(404, {"message": "No such image"})
    daemon.answers["/images/create"] = failed_pull(200, ENGINES_OWN[0])
    daemon.may_answer.clear()
    interrupts = [Watched(), Watched()]
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(engine.ensure_image, "alpine", "always", 30, interrupt) for interrupt in interrupts]
        for interrupt in interrupts:
            assert interrupt.blocked.wait(30)

        # When it fails
        daemon.may_answer.set()

        # I expect both to be told
        for future in futures:
            with pytest.raises(EngineUnavailable, match="no space left"):
                future.result(30)
    assert sum("/images/create" in line for line in daemon.asked) == 1

    # And, once there is room, a new pull
    daemon.answers |= {"/json": answer(200, {}), "/images/create": chunked(b'{"status": "Pull complete"}\r\n')}
    engine.ensure_image("alpine", "always", 30, Interrupt())
    assert sum("/images/create" in line for line in daemon.asked) == 2


def test_image_that_somebody_deletes_as_it_was_pulled_is_not_the_registrys_fault(daemon: ScriptedDaemon) -> None:
    # Given a pull that ends well, and no image after it
    daemon.answers |= {
        "/images/create": chunked(b'{"status": "Pull complete"}\r\n'),
        "/images/": answer(404, {"message": "No such image: alpine:latest"}),
    }

    # I expect no error that would end the job: whoever uses the image finds out, and pulls again
    DockerEngine(daemon.host).ensure_image("alpine", "always", 30, Interrupt())


@pytest.mark.parametrize("message", ["failed to copy: failed to send write: EOF", "connection error: desc = x", "nonsense"])
def test_pull_on_an_engine_that_was_restarted_says_nothing_about_the_image(daemon: ScriptedDaemon, message: str) -> None:
    # Given an engine that is restarted while it pulls, and ends the pull in whatever words
    def restart() -> bytes:
        daemon.answers["/networks"] = answer(200, networks(AFTER))
        return failed_pull(200, message)

    daemon.answers |= {"/networks": answer(200, networks(BEFORE)), "/images/create": restart}

    # I expect
    with pytest.raises(EngineUnavailable, match="restarted"):
        DockerEngine(daemon.host).ensure_image("alpine", "always", 10, Interrupt())
    assert pulls_of(daemon) == 1


def test_pull_on_an_engine_that_goes_away_says_nothing_about_the_image(daemon: ScriptedDaemon) -> None:
    # Given an engine that is told to stop while it pulls: it takes no new connection before it ends the pull
    def stop() -> bytes:
        daemon.refuse()
        return failed_pull(200, "failed to copy: failed to send write: EOF")

    daemon.answers["/images/create"] = stop

    # I expect
    with pytest.raises(EngineUnavailable, match="does not answer"):
        DockerEngine(daemon.host).ensure_image("alpine", "always", 10, Interrupt())


def test_pull_that_breaks_off_with_containerd_is_tried_again(daemon: ScriptedDaemon) -> None:
    # Given an engine whose containerd is restarted while it pulls
    answers = [failed_pull(200, "failed to copy: failed to send write: EOF"), chunked(b'{"status": "Pull complete"}\r\n')]
    daemon.answers |= {"/images/create": lambda: answers.pop(0), "/images/": answer(200, {"Config": {}})}

    # I expect no error
    DockerEngine(daemon.host).ensure_image("alpine", "always", 10, Interrupt())
    assert pulls_of(daemon) == 2


@pytest.mark.parametrize(("status", "pulls"), [(404, 1), (200, 2)])
def test_pull_that_fails_for_good_is_tried_again_only_where_it_had_begun(daemon: ScriptedDaemon, status: int, pulls: int) -> None:
    daemon.answers["/images/create"] = failed_pull(status, REGISTRYS_OWN[1])

    with pytest.raises(ImageUnavailable):
        DockerEngine(daemon.host).ensure_image("alpine", "always", 10, Interrupt())

    assert pulls_of(daemon) == pulls


def pulls_of(daemon: ScriptedDaemon) -> int:
    return sum("/images/create" in line for line in daemon.asked)


def test_image_with_a_huge_configuration_is_refused(daemon: ScriptedDaemon) -> None:
    # Given an image that was pulled, with more labels than every look at its containers should bring
    labels = {f"label-{number}": "x" * 1000 for number in range(140)}
    daemon.answers |= {
        "/images/create": chunked(b'{"status": "Pull complete"}\r\n'),
        "/images/": answer(200, {"Config": {"Labels": labels}}),
    }

    with pytest.raises(ImageUnavailable, match="larger than 128 KiB"):
        DockerEngine(daemon.host).ensure_image("alpine", "always", 30, Interrupt())
    with pytest.raises(ImageUnavailable, match="larger than 128 KiB"):
        pull(DockerEngine(daemon.host))


def test_answer_without_an_end_is_not_read_to_it(daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.engine.docker.transport.engine_answers._MAX_ANSWER_BYTES", 1000)
    daemon.answers["/info"] = answer(200, {"ID": "x" * 1000})

    with pytest.raises(EngineRefused, match="too long"):
        DockerEngine(daemon.host).info()


def test_progress_of_a_pull_that_no_reader_can_take_is_passed_over(daemon: ScriptedDaemon) -> None:
    daemon.answers |= {"/json": answer(404, {"message": "No such image"}), "/images/create": chunked(b"[" * 200_000, b"\n")}

    pull(DockerEngine(daemon.host))


# -- TCP with TLS ------------------------------------------------------------------------------------------------


def write_certificates(directory: Path) -> None:
    """`ca.pem`, and for both ends `cert.pem` and `key.pem`, as `DOCKER_CERT_PATH` has them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (directory / "ca.pem").write_bytes(pem)
    (directory / "cert.pem").write_bytes(pem)
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.fixture
def tls_host(docker_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same engine behind TCP with TLS; clients must show a certificate."""
    write_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    context.load_verify_locations(tmp_path / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))
    opened: list[socket.socket] = [listener]

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                client = context.wrap_socket(listener.accept()[0], server_side=True)
                engine = socket.socket(socket.AF_UNIX)
                opened.extend((client, engine))
                engine.connect(docker_host.removeprefix("unix://"))
                for pair in ((client, engine), (engine, client)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    for one in opened:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


@pytest.mark.engine
def test_engine_over_tls_does_what_it_does_over_its_socket(docker_bench: DockerBench, tls_host: str) -> None:
    if not docker_bench.host.startswith("unix://"):
        pytest.skip("the engine under test has no socket here")
    engine, content = DockerEngine(tls_host), os.urandom(300_000)
    spec = docker_bench.spec(shell("seq 20000; cp in out; sleep 60"))
    name = spec.name
    engine.create(spec)
    engine.put(name, "/workspace", [tar_of("in", content)])
    engine.start(name)
    interrupt = Interrupt()
    lines: list[bytes] = []

    def follow() -> None:
        with engine.logs(name, skip=0, follow=True, interrupt=interrupt) as frames:
            for one in frames:
                if one is None:
                    threading.Timer(0.2, interrupt.wake).start()
                else:
                    lines.append(one.data)

    with pytest.raises(Interrupted):
        follow()

    assert lines == [b"%d\n" % number for number in range(1, 20001)]
    with engine.get(name, "/workspace/out") as chunks:
        assert untar(chunks)["out"][1] == content
    interrupt.clear()
    engine.wait(name, interrupt, timeout=0.1)
    engine.stop(name, 5)
    engine.wait(name, interrupt)
    assert engine.inspect(name).phase == "ended"


# -- bringing the init -----------------------------------------------------------------------------------------


@pytest.fixture
def without_init(daemon: ScriptedDaemon) -> ScriptedDaemon:
    """An engine that has no holder of our init yet, and says so when the job's container is created."""
    daemon.answers["/version"] = answer(200, {"ApiVersion": "1.41", "Arch": "amd64"})
    holder = init.Init(EngineClient(daemon.host, EngineIntervals())).holder()
    daemon.answers |= {
        "/images/load": answer(200, {"stream": "Loaded image"}),
        "create?name=orchestrator-init": answer(404, {"message": "No such image: orchestrator-init"}),
        "create?name=job": answer(400, {"message": f"No such container: {holder}"}),
        "orchestrator-init": answer(404, {"message": "No such container"}),
    }
    return daemon


@pytest.fixture
def spec(fake_bench: FakeBench) -> RunSpec:
    return fake_bench.spec(name="job")


FULL = "no space left on device"


@pytest.mark.parametrize("said", [answer(200, {"errorDetail": {"message": FULL}, "error": FULL}), answer(500, {"message": FULL})])
def test_reason_why_the_image_of_the_init_cannot_be_loaded_is_told(
    without_init: ScriptedDaemon, spec: RunSpec, said: bytes
) -> None:
    without_init.answers["/images/load"] = said

    with pytest.raises(EngineInTrouble, match=f"cannot be loaded: {FULL}"):
        DockerEngine(without_init.host).create(spec)


def test_engine_on_which_the_init_cannot_be_had_is_in_trouble(without_init: ScriptedDaemon, spec: RunSpec) -> None:
    with pytest.raises(EngineInTrouble, match="cannot be installed on the engine: No such image"):
        DockerEngine(without_init.host).create(spec)


def test_job_waits_while_another_worker_brings_the_init(without_init: ScriptedDaemon, spec: RunSpec) -> None:
    without_init.answers["create?name=orchestrator-init"] = answer(409, {"message": "the name is in use by another container"})

    with pytest.raises(EngineUnavailable, match="another worker"):
        DockerEngine(without_init.host).create(spec)


def test_refusal_that_happens_to_name_the_holder_is_the_jobs(without_init: ScriptedDaemon, spec: RunSpec) -> None:
    without_init.answers["create?name=orchestrator-init"] = answer(409, {"message": "the name is in use by another container"})
    without_init.answers["orchestrator-init"] = answer(200, {"Id": "0"})

    with pytest.raises(EngineRefused):
        DockerEngine(without_init.host).create(spec)


@pytest.mark.parametrize("architecture", ["riscv64", ""])
def test_engine_of_an_architecture_that_has_no_init_uses_its_own(daemon: ScriptedDaemon, architecture: str) -> None:
    daemon.answers["/version"] = answer(200, {"ApiVersion": "1.41", "Arch": architecture})

    assert init.Init(EngineClient(daemon.host, EngineIntervals())).checked_holder() == ""


# -- files -------------------------------------------------------------------------------------------------------


def take(engine: DockerEngine) -> None:
    with engine.get("job", "/f"):
        pass


@pytest.mark.parametrize("reason", ["not a directory", "too many levels of symbolic links"])
def test_path_with_the_words_of_an_engine_in_trouble_is_only_a_path(daemon: ScriptedDaemon, reason: str) -> None:
    daemon.answers["/archive"] = answer(500, {"message": f"lstat /srv/merged/{FULL}/f: {reason}"})

    with pytest.raises(PathNotFound):
        take(DockerEngine(daemon.host))


def test_engine_whose_disk_is_full_says_nothing_about_a_path(daemon: ScriptedDaemon) -> None:
    daemon.answers["/archive"] = answer(500, {"message": f"write /srv/x: {FULL}"})

    with pytest.raises(EngineUnavailable):
        take(DockerEngine(daemon.host))
