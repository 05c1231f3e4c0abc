"""The contract of every engine: the frames of logs, and how to stop and resume reading them."""

import threading
import time
import tracemalloc
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from jobs.engine.docker.container_json import creation_body
from jobs.engine.protocol import Frame, Frames, RunSpec
from jobs.errors import ContainerNotFound, Interrupted
from jobs.interrupt import Interrupt
from tests.helpers.engines import Bench, DockerBench, shell
from tests.helpers.log_frames import flat

pytestmark = pytest.mark.stateless

# It stays a moment: what a busy node has not read 2 s after the end of a process is lost.
LINES_20000 = shell("seq 20000; seq 20001 20100 >&2; sleep 1")


def frames_until(frames: Iterator[Frames | None], data: bytes) -> Iterator[Frames | None]:
    """Yield frames up to the one with this data."""
    for some in frames:
        yield some
        if some is not None and data in some.data:
            return


def text(frames: list[Frame], stream: str = "stdout") -> bytes:
    return b"".join(frame.data for frame in frames if frame.stream == stream)


def check_streams(bench: Bench, frames: list[Frame], *, stdout: bytes, stderr: bytes) -> None:
    """Check that both streams are complete, or that stdout has the lines of both in their order if the engine merges them."""
    if not bench.engine.traits.merges_streams:
        assert (text(frames), text(frames, "stderr")) == (stdout, stderr)
        return
    merged = text(frames).splitlines()
    for stream in (stdout, stderr):
        lines = set(stream.splitlines())
        assert [line for line in merged if line in lines] == stream.splitlines()
    assert len(frames) == len(merged) == len((stdout + stderr).splitlines())


@pytest.mark.parametrize("follow", [True, False])
def test_the_log_of_an_ended_container_is_complete(bench: Bench, follow: bool) -> None:
    name = bench.ended(shell("echo one; echo two; echo three >&2"))

    frames = bench.log(name, follow=follow)

    check_streams(bench, frames, stdout=b"one\ntwo\n", stderr=b"three\n")


def test_frames_have_a_time_with_nanoseconds(bench: Bench) -> None:
    seen = bench.run(shell("echo one"))

    (frame,) = bench.log(seen.name)

    assert frame.time.endswith("Z")
    assert len(frame.time.partition(".")[2]) >= 7
    assert seen.started_at is not None
    assert abs((datetime.fromisoformat(frame.time) - seen.started_at).total_seconds()) < 10


@pytest.mark.parametrize("follow", [True, False])
def test_a_silent_container_has_no_frames(bench: Bench, follow: bool) -> None:
    assert bench.log(bench.ended(), follow=follow) == []


def test_a_container_that_never_started_has_no_frames(bench: Bench) -> None:
    assert bench.log(bench.created()) == []


def test_a_followed_log_ends_with_the_process(bench: Bench) -> None:
    name = bench.started(shell("echo one; sleep 0.1; echo two; sleep 0.1; echo three"))

    assert text(bench.log(name, follow=True)) == b"one\ntwo\nthree\n"

    bench.engine.wait(name, Interrupt(), timeout=10)
    assert bench.engine.inspect(name).phase == "ended"


def test_a_log_that_is_not_followed_ends_at_once(bench: Bench) -> None:
    name = bench.started(shell("echo one; sleep 60"))

    with bench.engine.logs(name, skip=0, follow=True, interrupt=Interrupt()) as frames:
        assert next(frames)

    assert text(bench.log(name)) == b"one\n"


def test_a_last_line_without_a_line_feed_is_read_after_the_end(bench: Bench) -> None:
    name = bench.ended(shell("echo one; printf two"))
    assert bench.engine.inspect(name).exit_code == 0
    assert text(bench.log(name)) == b"one\ntwo"


def test_bytes_are_passed_on_unchanged(bench: Bench) -> None:
    written = b"\xff\xfe \x80 caf\xc3 caf\xc3\xa9 \x01\x00\r\x1b[0m\r\n\r\rx\r\n"
    octal = "".join(f"\\{byte:03o}" for byte in written)

    printed = text(bench.log(bench.ended(shell(f"printf '{octal}'"))))

    assert printed == (written if bench.engine.traits.keeps_carriage_returns else written.replace(b"\r\n", b"\n"))


@pytest.mark.parametrize("follow", [True, False])
def test_characters_cut_by_the_engine_are_restored(bench: Bench, follow: bool) -> None:
    # Given a line of characters of three bytes, so that one lies across each cut at 16 KiB
    name = bench.started(shell("yes 漢字テスト | head -n 3000 | tr -d '\\n'; echo; echo 終"))

    assert text(bench.log(name, follow=True)).decode() == "漢字テスト" * 3000 + "\n終\n"
    assert text(bench.log(name, follow=follow)).decode() == "漢字テスト" * 3000 + "\n終\n"


@pytest.mark.parametrize("size", [16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 100 * 1024])
def test_a_long_line_has_several_frames(bench: Bench, size: int) -> None:
    name = bench.ended(shell(f"head -c {size} /dev/zero | tr '\\0' x; echo; echo next"))

    frames = bench.log(name)

    assert text(frames) == b"x" * size + b"\nnext\n"
    assert max(len(frame.data) for frame in frames) <= 16 * 1024 + 1


def test_a_log_is_always_the_same_and_can_be_read_from_any_frame(bench: Bench) -> None:
    name = bench.ended(LINES_20000)

    whole = bench.log(name)

    stdout, stderr = (b"".join(b"%d\n" % number for number in numbers) for numbers in (range(1, 20001), range(20001, 20101)))
    check_streams(bench, whole, stdout=stdout, stderr=stderr)
    for cursor in (0, 1, 7777, len(whole) - 1, len(whole), len(whole) + 10):
        assert bench.log(name, skip=cursor) == whole[cursor:]
    assert bench.log(name, skip=19_000, follow=True) == whole[19_000:]


def test_the_last_frames_of_a_log_can_be_read_alone(bench: Bench) -> None:
    name = bench.ended(LINES_20000)
    whole = bench.log(name)

    for count in (1, 64, len(whole) + 10):
        assert bench.log(name, tail=count) == whole[-count:]


def test_a_followed_log_can_be_resumed(bench: Bench) -> None:
    name = bench.started(shell("echo one; echo two; sleep 60"))
    with bench.engine.logs(name, skip=0, follow=True, interrupt=Interrupt()) as frames:
        first = flat(frames_until(frames, b"two\n"))

    with bench.engine.logs(name, skip=1, follow=True, interrupt=Interrupt()) as frames:
        assert flat([next(frames)]) == first[1:]


def test_none_is_yielded_once_per_pause(bench: Bench) -> None:
    name = bench.started(shell("echo one; sleep 3; echo two; sleep 1.2; echo three"))

    with bench.engine.logs(name, skip=0, follow=True, interrupt=Interrupt()) as frames:
        seen = [data for some in frames for data in (some.data if some else [None])]

    data = [piece for piece in seen if piece is not None]
    assert data == [b"one\n", b"two\n", b"three\n"]
    assert seen[seen.index(b"one\n") + 1 : seen.index(b"two\n")] == [None]
    assert seen[seen.index(b"two\n") + 1 : seen.index(b"three\n")] == [None]


@pytest.mark.parametrize("early", [True, False])
def test_an_interrupt_ends_the_reading_of_a_quiet_log(bench: Bench, early: bool) -> None:
    name = bench.started(shell("echo one; sleep 60"))
    interrupt, waker = Interrupt(), None
    read: list[Frames | None] = []
    if early:
        interrupt.wake()
    else:
        waker = threading.Timer(0.6, interrupt.wake)
        waker.start()

    def follow() -> None:
        with bench.engine.logs(name, skip=0, follow=True, interrupt=interrupt) as frames:
            read.extend(frames)

    with pytest.raises(Interrupted):
        follow()

    if waker:
        waker.join()
    assert bench.engine.inspect(name).phase == "running"


def test_an_interrupt_ends_the_reading_of_a_busy_log(bench: Bench) -> None:
    name = bench.started(shell("while true; do echo line; done"))
    interrupt = Interrupt()

    def follow() -> None:
        with bench.engine.logs(name, skip=0, follow=True, interrupt=interrupt) as frames:
            for number, _ in enumerate(frame for some in frames for frame in some or ()):
                if number == 1000:
                    interrupt.wake()

    with pytest.raises(Interrupted):
        follow()


def test_an_interrupted_log_can_be_resumed(bench: Bench) -> None:
    name = bench.ended(shell("echo one; echo two"))
    interrupt = Interrupt()
    interrupt.wake()
    with pytest.raises(Interrupted), bench.engine.logs(name, skip=0, follow=True, interrupt=interrupt) as frames:
        next(frames)
    interrupt.clear()

    with bench.engine.logs(name, skip=1, follow=True, interrupt=interrupt) as frames:
        assert [frame.data for frame in flat(frames)] == [b"two\n"]


def test_a_reader_may_leave_a_log_early(bench: Bench) -> None:
    name = bench.started(shell("while true; do echo line; done"))

    for _ in range(20):
        with bench.engine.logs(name, skip=0, follow=True, interrupt=Interrupt()) as frames:
            next(frames)

    bench.engine.remove(name, force=True)
    with pytest.raises(ContainerNotFound):
        bench.log(name)


def test_errors_of_the_reader_are_passed_on_unchanged(bench: Bench) -> None:
    name = bench.ended(shell("echo one"))

    with pytest.raises(OSError, match="mine"), bench.engine.logs(name, skip=0, follow=True, interrupt=Interrupt()):
        raise OSError("mine")


@pytest.mark.engine
@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_logs_of_both_drivers_are_read_alike(docker_bench: DockerBench, monkeypatch: pytest.MonkeyPatch, driver: str) -> None:
    # Given a container of this release, or of an earlier one, that prints long and short lines
    def made(spec: RunSpec, init_holder: str) -> dict[str, Any]:
        body = creation_body(spec, init_holder)
        options = {"max-size": "1g", "max-file": "2"}
        body["HostConfig"]["LogConfig"] = {"Type": driver, "Config": options}
        return body

    monkeypatch.setattr("jobs.engine.docker.container_creation.creation_body", made)
    long = "for n in 20000 16384 3; do head -c $n /dev/zero | tr '\\0' x; echo; done"
    name = docker_bench.ended(shell(f"{long}; seq 1000; {long} >&2; printf end"))

    whole = docker_bench.log(name)

    # I expect the same bytes and frames, from the start and from any frame
    lines = b"".join(b"x" * size + b"\n" for size in (20_000, 16_384, 3))
    assert text(whole) == lines + b"".join(b"%d\n" % number for number in range(1, 1001)) + b"end"
    assert text(whole, "stderr") == lines
    assert len(whole) == 1011
    for cursor in (1, 2, 3, 4, 5, 1000):
        assert docker_bench.log(name, skip=cursor) == whole[cursor:]


@pytest.mark.engine
def test_a_large_log_is_read_in_constant_memory(docker_bench: DockerBench) -> None:
    name = docker_bench.ended(shell("yes 0123456789012345678901234567890123456789 | head -n 100000"))
    tracemalloc.start()
    try:
        with docker_bench.engine.logs(name, skip=0, follow=False, interrupt=Interrupt()) as frames:
            count = sum(len(some) for some in frames if some)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert count == 100_000
    assert peak < 4 * 1024**2


@pytest.mark.engine
def test_a_log_is_bounded_on_the_engines_disk(docker_bench: DockerBench) -> None:
    name = docker_bench.ended(shell("seq 100000"), log_limit_bytes=1024**2)

    kept = docker_bench.log(name)

    assert kept[-1].data == b"100000\n"
    assert len(kept) < 100_000


@pytest.mark.engine
def test_many_followers_and_waiters_share_one_engine(docker_bench: DockerBench) -> None:
    name = docker_bench.started(shell("sleep 60"))
    interrupts = [Interrupt() for _ in range(60)]
    outcomes: list[str] = []

    def block(interrupt: Interrupt, number: int) -> None:
        try:
            if number % 2:
                docker_bench.engine.wait(name, interrupt)
            else:
                with docker_bench.engine.logs(name, skip=0, follow=True, interrupt=interrupt) as frames:
                    list(frames)
        except Interrupted:
            outcomes.append("interrupted")

    threads = [threading.Thread(target=block, args=(one, number)) for number, one in enumerate(interrupts)]
    for thread in threads:
        thread.start()
    assert docker_bench.engine.inspect(name).phase == "running"
    for interrupt in interrupts:
        interrupt.wake()
    deadline = time.monotonic() + 30
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))

    assert outcomes == ["interrupted"] * 60
