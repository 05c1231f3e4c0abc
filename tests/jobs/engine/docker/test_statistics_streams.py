"""Following running containers by the engine's statistics, which a scripted engine sends."""

import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from jobs.engine.docker.transport import EngineClient
from jobs.engine.docker.usage import StatisticsStreams, statistics_reader, statistics_streams
from jobs.engine.docker.usage.statistics_reader import MAX_STREAMS, FollowedStatistics, StatisticsReader, sample_of
from jobs.engine.protocol import FollowedUsage, Usage
from orchestrator_site.base.intervals import EngineIntervals
from tests.helpers.waiting import wait_for
from tests.jobs.engine.docker.scripted_daemon import ScriptedDaemon, answer, chunked

pytestmark = pytest.mark.stateless

Follow = Callable[[str], FollowedUsage]

SECOND = 10**9  # in the statistics
MIB = 1024**2


def sample(cpu_seconds: float, **memory: int) -> bytes:
    return json.dumps({"cpu_stats": {"cpu_usage": {"total_usage": int(cpu_seconds * SECOND)}}, "memory_stats": memory}).encode()


AFTER_THE_END = [sample(0), json.dumps({"name": "/job", "id": "0"}).encode()]  # on Docker 20.10 and 26


def lines(*samples: bytes, end: bool = False) -> bytes:
    """Return an answer with these samples, which goes on unless `end` is set."""
    return chunked(*(one + b"\n" for one in samples), end=end)


@pytest.fixture
def intervals() -> EngineIntervals:
    """Streams are opened at once, and soon again."""
    return EngineIntervals(statistics_delay=0, statistics_answer=0.1, statistics_pace=0, statistics_retry=0.02)


@pytest.fixture
def follow(daemon: ScriptedDaemon, intervals: EngineIntervals) -> Iterator[Follow]:
    """`StatisticsStreams.follow`. All that is followed is closed at the end of the test."""
    daemon.close_after_answer = False
    streams = StatisticsStreams(EngineClient(daemon.host, intervals))
    all_followed: list[FollowedUsage] = []

    def follow(name: str) -> FollowedUsage:
        all_followed.append(streams.follow(name))
        return all_followed[-1]

    yield follow
    for followed in all_followed:
        followed.close()
    daemon.may_answer.set()
    wait_for(lambda: not statistics_threads(), 5, "the thread to end")


def statistics_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "engine statistics"]


def wait_for_usage(followed: FollowedUsage) -> Usage:
    return wait_for(followed.latest, 5, "a sample")


def test_the_last_sample_of_a_process_counts(daemon: ScriptedDaemon, follow: Follow) -> None:
    # Given an engine with version 1 of control groups, whose samples are empty after the end
    samples = [sample(1.5, usage=4 * MIB, max_usage=5 * MIB), sample(2.25, usage=MIB, max_usage=6 * MIB), *AFTER_THE_END]
    daemon.answers["/containers/job/stats?stream=1"] = lines(*samples)

    # I expect
    assert wait_for_usage(follow("job")) == Usage(2.25, 6 * MIB)


def test_the_highest_memory_that_was_seen_is_the_peak_in_version_2(daemon: ScriptedDaemon, follow: Follow) -> None:
    # Given
    daemon.answers["/stats"] = lines(sample(1, usage=4 * MIB), sample(2, usage=9 * MIB), sample(3, usage=MIB))

    # I expect
    assert wait_for_usage(follow("job")) == Usage(3, 9 * MIB)


@pytest.mark.parametrize(
    "line",
    [b"", b"null", b"[]", b"{", b'{"cpu_stats": {}}', b'{"cpu_stats": {"cpu_usage": {"total_usage": "1"}}, "memory_stats": {}}'],
)
def test_what_is_no_sample_says_nothing(line: bytes) -> None:
    assert sample_of(line) is None


def test_the_peak_may_be_unknown() -> None:
    assert sample_of(sample(1)) == Usage(1, None)


def test_a_stream_is_closed_with_its_container_and_the_others_go_on(daemon: ScriptedDaemon, follow: Follow) -> None:
    # Given two containers
    daemon.answers["/stats"] = lines(sample(1))
    first, second = follow("one"), follow("two")
    assert [wait_for_usage(first), wait_for_usage(second)] == [Usage(1), Usage(1)]
    before = daemon.connections

    # When
    first.close()

    # I expect one connection less, and both to stay known
    wait_for(lambda: daemon.connections == before - 1, 5, "the connection to be closed")
    assert len(statistics_threads()) == 1
    assert first.latest() == Usage(1)
    second.close()
    wait_for(lambda: not daemon.connections, 5, "the other connection to be closed")
    assert daemon.count("/stats") == 2


def test_only_so_many_streams_are_open_at_once(daemon: ScriptedDaemon, follow: Follow) -> None:
    # Given an engine whose samples take long
    daemon.answers["/stats"] = lines()

    # When more containers are followed
    for number in range(MAX_STREAMS + 2):
        follow(f"job-{number}")

    # I expect no more connections
    wait_for(lambda: daemon.count("/stats") == MAX_STREAMS, 5, "the streams")
    follow("another").close()
    assert daemon.count("/stats") == MAX_STREAMS


def test_more_containers_than_streams_take_turns(daemon: ScriptedDaemon, follow: Follow) -> None:
    # Given an engine whose streams go on after a sample
    daemon.answers["/stats"] = lines(sample(1))

    # When more containers are followed
    followed = [follow(f"job-{number}") for number in range(MAX_STREAMS + 2)]

    # I expect all to be known
    for one in followed:
        wait_for_usage(one)


def test_an_engine_that_answers_at_once_is_asked_no_more_often(daemon: ScriptedDaemon) -> None:
    # Given a reader that has just opened a stream
    daemon.answers["/stats"] = lines(sample(1))
    client = EngineClient(daemon.host, EngineIntervals(statistics_pace=60))
    first, second = (FollowedStatistics(name, 0, lambda _: None) for name in ("first", "second"))
    waker, woken = socket.socketpair()
    with waker, woken, StatisticsReader(client, woken) as reader:
        waker.send(b"\0")
        reader.turn({first})
        assert first.latest() == Usage(1)

        # When it looks for others, I expect it not to open the next one yet
        waker.send(b"\0")
        reader.turn({first, second})
        assert daemon.count("/stats") == 1


@pytest.mark.parametrize("intervals", [EngineIntervals(statistics_delay=0, statistics_pace=0, statistics_retry=60)])
def test_a_container_that_is_gone_delays_no_other(daemon: ScriptedDaemon, follow: Follow) -> None:
    # Given a container that was removed
    daemon.answers["/containers/gone/stats"] = answer(404, {"message": "no such container"})
    follow("gone")
    wait_for(lambda: daemon.count("/stats") == 1, 5, "the request")

    # I expect another to be followed at once
    daemon.answers["/containers/job/stats"] = lines(sample(1))
    assert wait_for_usage(follow("job")) == Usage(1)


def test_a_stream_that_ends_is_opened_again(daemon: ScriptedDaemon, follow: Follow) -> None:
    # Given an engine that ends its streams, as at a restart
    daemon.answers["/stats"] = lines(sample(1), end=True)
    followed = follow("job")
    assert wait_for_usage(followed) == Usage(1)

    # When it goes on
    daemon.answers["/stats"] = lines(sample(2))

    # I expect
    wait_for(lambda: followed.latest() == Usage(2), 5, "a sample of the next stream")


def test_a_stream_that_breaks_off_is_opened_again(daemon: ScriptedDaemon, follow: Follow) -> None:
    # Given an engine that dies in the middle of an answer
    daemon.close_after_answer = True
    daemon.answers["/stats"] = lines(sample(1))
    followed = follow("job")

    # I expect
    wait_for(lambda: daemon.count("/stats") > 1, 5, "another request")
    assert followed.latest() == Usage(1)


@pytest.mark.parametrize("refusal", [answer(403, {"message": "no"}), answer(404, {"message": "gone"}), lines(b"x" * 2 * MIB)])
def test_an_engine_that_gives_no_statistics_is_asked_again_later(daemon: ScriptedDaemon, follow: Follow, refusal: bytes) -> None:
    # Given
    daemon.answers["/stats"] = refusal
    followed = follow("job")
    wait_for(lambda: daemon.count("/stats") > 1, 5, "another request")
    assert followed.latest() is None

    # When it gives some
    daemon.answers["/stats"] = lines(sample(1))

    # I expect
    assert wait_for_usage(followed) == Usage(1)


def test_a_silent_engine_delays_nobody(daemon: ScriptedDaemon, follow: Follow) -> None:
    # Given an engine that accepts connections and does not answer
    daemon.may_answer.clear()

    # When containers are followed, I expect neither that nor its end to wait for it
    followed = [follow("one"), follow("two")]
    wait_for(lambda: daemon.requests, 5, "a request")
    for one in followed:
        one.close()
    assert [one.latest() for one in followed] == [None, None]


def test_a_worker_without_another_thread_goes_on(daemon: ScriptedDaemon, follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a process that may start no more threads
    daemon.answers["/stats"] = lines(sample(1))

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)

        # When a container is followed, I expect it to be unknown, and no error
        unknown = follow("one")
        unknown.close()

    # When threads can be started again, I expect the next one to be known
    assert wait_for_usage(follow("two")) == Usage(1)
    assert unknown.latest() is None


def test_an_error_of_the_reader_ends_only_what_it_read(
    daemon: ScriptedDaemon, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a reader that fails
    daemon.answers["/stats"] = lines(sample(1))

    def fail(_: bytes) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(statistics_reader, "sample_of", fail)

        # When it has just failed while the container ends, I expect no error for the container's run
        daemon.may_answer.clear()
        ending = follow("one")
        patch.setattr(statistics_streams.logger, "exception", lambda _: ending.close())
        daemon.may_answer.set()
        wait_for(lambda: not statistics_threads(), 5, "the thread to end")

    # When another container is followed, I expect it to be known
    assert wait_for_usage(follow("two")) == Usage(1)
