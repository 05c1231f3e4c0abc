"""Log and wait streams that are cut anywhere, break off, or are not what they should be."""

from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.engine.docker import DockerEngine
from jobs.engine.protocol import Frame
from jobs.errors import EngineRefused, EngineUnavailable
from jobs.interrupt import Interrupt
from tests.helpers.log_frames import flat
from tests.jobs.engine.docker.scripted_daemon import ScriptedDaemon, chunked, frame

pytestmark = pytest.mark.stateless


def read(engine: DockerEngine, skip: int = 0, *, follow: bool = False) -> list[Frame]:
    with engine.logs("job", skip=skip, follow=follow, interrupt=Interrupt()) as frames:
        return flat(frames)


@settings(max_examples=60)
@given(
    lines=st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=40)), max_size=8),
    cuts=st.lists(st.integers(1, 50), min_size=1, max_size=6),
    skip=st.integers(0, 10),
    follow=st.booleans(),
)
def test_frames_do_not_depend_on_where_the_stream_is_cut(
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
    assert [(one.stream, one.data) for one in frames] == named[skip:]


@pytest.mark.parametrize(
    "body",
    [
        chunked(frame(b"one\n"), end=False),  # between frames: the engine died, the process may run on
        chunked(frame(b"one\n"), frame(b"two\n")[:20]),  # a regular end in the middle of a frame
        chunked(frame(b"one\n"), frame(b"two\n")[:5]),
        chunked(frame(b"one\n"), frame(b"two\n")[:8]),
        chunked(frame(b"one\n")) [:-3],
        chunked(frame(b"one\n"), end=False) + b"20\r\nabc",
        chunked(frame(b"one\n"), end=False) + b"nonsense\r\n",
        chunked(frame(b"one\n"), end=False) + b"1" * 5000,
    ],
)  # fmt: skip
def test_a_log_that_breaks_off_has_not_ended(daemon: ScriptedDaemon, body: bytes) -> None:
    daemon.answers["/logs"] = body
    seen = []

    def follow() -> None:
        with DockerEngine(daemon.host).logs("job", skip=0, follow=True, interrupt=Interrupt()) as frames:
            seen.extend(data for some in frames if some for data in some.data)

    with pytest.raises(EngineUnavailable):
        follow()
    assert seen in ([b"one\n"], [])


def test_an_engine_that_cannot_read_its_log_reports_the_reason(daemon: ScriptedDaemon) -> None:
    daemon.answers["/logs"] = chunked(frame(b"one\n"), bytes([3, 0, 0, 0, 0, 0, 0, 4]) + b"torn")

    with pytest.raises(EngineRefused, match="torn"):
        read(DockerEngine(daemon.host))


@pytest.mark.parametrize("size", [b"-5", b"+5", b"0x5", b"5_0", b"5 0", b"", b"f" * 16])
def test_a_chunk_size_must_be_hexadecimal(daemon: ScriptedDaemon, size: bytes) -> None:
    daemon.answers["/logs"] = chunked(end=False) + size + b"\r\n" + frame(b"one\n") + b"\r\n0\r\n\r\n"

    with pytest.raises(EngineUnavailable):
        read(DockerEngine(daemon.host))


def test_a_chunk_ends_with_a_line_end(daemon: ScriptedDaemon) -> None:
    # Given an engine that sends a longer chunk than it announces
    one, two = chunked(frame(b"one\n"), end=False), chunked(frame(b"two\n")).partition(b"\r\n\r\n")[2]
    daemon.answers["/logs"] = one.removesuffix(b"\r\n") + b"XX" + two

    # When its log is read, I expect an error and not another log
    with pytest.raises(EngineUnavailable):
        read(DockerEngine(daemon.host))


HEADERS = [bytes([1, 0, 0, 0, 255, 255, 255, 255]), bytes([0, 0, 0, 0, 0, 0, 0, 4]), bytes([4, 0, 0, 0, 0, 0, 0, 4]), b"HTTP/1.1"]


@pytest.mark.parametrize("header", HEADERS, ids=["size", "kind 0", "kind 4", "text"])
def test_a_malformed_frame_takes_no_memory(daemon: ScriptedDaemon, header: bytes) -> None:
    daemon.answers["/logs"] = chunked(header, b"x" * 1000)

    with pytest.raises(EngineRefused, match="not a sequence of frames"):
        read(DockerEngine(daemon.host))


def test_an_empty_log_with_a_length_is_read(daemon: ScriptedDaemon) -> None:
    daemon.answers["/logs"] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    assert read(DockerEngine(daemon.host), follow=True) == []


def test_a_short_log_with_a_length_is_read(daemon: ScriptedDaemon) -> None:
    body = frame(b"one\n")
    daemon.answers["/logs"] = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    assert [one.data for one in read(DockerEngine(daemon.host))] == [b"one\n"]


def test_a_wait_that_breaks_off_does_not_mean_the_process_ended(daemon: ScriptedDaemon) -> None:
    daemon.answers["/wait"] = chunked(end=False)

    with pytest.raises(EngineUnavailable):
        DockerEngine(daemon.host).wait("job", Interrupt())


def test_a_wait_that_the_engine_gives_up_is_unavailable(daemon: ScriptedDaemon) -> None:
    daemon.answers["/wait"] = chunked(b'{"StatusCode": 0, "Error": {"Message": "containerd is away"}}')

    with pytest.raises(EngineUnavailable, match="containerd is away"):
        DockerEngine(daemon.host).wait("job", Interrupt())
