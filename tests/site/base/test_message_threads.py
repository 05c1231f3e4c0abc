"""The threads that process messages: as many as there is work for, and none that wakes up for nothing."""

import threading
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.worker import WorkerThread

from orchestrator_site.base.intervals import BrokerIntervals
from orchestrator_site.base.message_threads import MessageThreads, ReceivedMessages
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.stateless

INTERVALS = BrokerIntervals(stop_check=0.05)  # so that consumers stop at once


class Work:
    """An actor whose calls block until `release` is set."""

    def __init__(self, broker: StubBroker) -> None:
        self.started = 0
        self.release = threading.Event()
        self._lock = threading.Lock()
        self.actor: dramatiq.Actor[..., Any] = dramatiq.actor(broker=broker, queue_name="work", actor_name="work")(self._work)

    def _work(self) -> None:
        with self._lock:
            self.started += 1
        assert self.release.wait(30)


@pytest.fixture
def broker() -> StubBroker:
    return StubBroker(middleware=[])


@pytest.fixture
def work(broker: StubBroker) -> Iterator[Work]:
    work = Work(broker)
    yield work
    work.release.set()


def worker_of(broker: StubBroker, threads: int, intervals: BrokerIntervals = INTERVALS) -> MessageThreads:
    worker = MessageThreads(broker, {"work"}, threads, intervals)
    worker.start()
    return worker


def test_no_thread_is_started_before_there_is_a_message(broker: StubBroker, work: Work) -> None:
    # Given a worker that may have many threads
    worker = worker_of(broker, 512)

    # I expect none, and one consumer: there are no delayed messages
    assert worker.workers == []
    assert list(worker.consumers) == ["work"]
    worker.stop()


def test_each_message_that_finds_no_idle_thread_gets_one_until_there_are_enough(broker: StubBroker, work: Work) -> None:
    # Given a worker with at most three threads
    worker = worker_of(broker, 3)

    # When five messages come that take long
    for _ in range(5):
        work.actor.send()

    # I expect three threads
    wait_for(lambda: work.started == 3 and len(worker.workers) == 3, 10, "three calls")

    # When they are done, I expect the same threads to process the others
    work.release.set()
    wait_for(lambda: work.started == 5, 10, "all calls")
    assert len(worker.workers) == 3
    worker.stop()


def test_an_idle_thread_is_used_again(broker: StubBroker, work: Work) -> None:
    # Given a thread that has processed a message
    worker = worker_of(broker, 3)
    work.release.set()
    work.actor.send()
    broker.join("work", timeout=10_000)
    wait_for(lambda: worker._received._idle == 1, 10, "an idle thread")

    # When another message comes
    work.actor.send()
    broker.join("work", timeout=10_000)

    # I expect no second thread
    assert work.started == 2
    wait_for(lambda: len(worker.workers) == 1, 10, "the thread")
    worker.stop()


def test_a_thread_that_was_idle_for_long_ends(broker: StubBroker, work: Work) -> None:
    # Given a thread that has processed a message
    worker = worker_of(broker, 1, BrokerIntervals(stop_check=0.05, thread_idle=0.05))
    work.release.set()
    work.actor.send()
    wait_for(lambda: work.started == 1, 10, "the call")

    # I expect it to end after a while
    wait_for(lambda: not any(thread.is_alive() for thread in worker.workers), 10, "the end of the thread")

    # and the next message to get a new one, although there may be one thread only
    work.actor.send()
    wait_for(lambda: work.started == 2, 10, "the second call")
    worker.stop()


def test_a_message_that_comes_while_the_only_thread_ends_gets_another(
    broker: StubBroker, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a thread that was idle for long and that takes a while to end
    run, ending, end = WorkerThread.run, threading.Event(), threading.Event()

    def run_and_linger(thread: WorkerThread) -> None:
        try:
            run(thread)
        finally:
            ending.set()
            end.wait(30)

    monkeypatch.setattr(WorkerThread, "run", run_and_linger)
    worker = worker_of(broker, 1, BrokerIntervals(stop_check=0.05, thread_idle=0.05))
    work.release.set()
    work.actor.send()
    assert ending.wait(10)

    # When a message comes, I expect it to be processed
    work.actor.send()
    wait_for(lambda: work.started == 2, 10, "the second call")
    end.set()
    worker.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_fails_is_replaced(broker: StubBroker, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a worker with at most one thread, which the first message ends while another one waits
    process, failed = WorkerThread.process_message, threading.Event()

    def fail_once(thread: WorkerThread, message: Any) -> None:
        if not failed.is_set():
            wait_for(lambda: worker.work_queue.qsize() == 1, 10, "a waiting message")
            failed.set()
            raise SystemExit
        process(thread, message)

    monkeypatch.setattr(WorkerThread, "process_message", fail_once)
    worker = MessageThreads(broker, {"work"}, 1, INTERVALS)
    worker.queue_prefetch = 2
    worker.start()
    for _ in range(2):
        work.actor.send()

    # I expect a new thread to process the other
    wait_for(lambda: work.started == 1, 10, "the call")
    work.release.set()
    worker.stop()


def test_a_thread_that_cannot_be_started_is_started_for_the_next_message() -> None:
    # Given at most one thread, and an operating system that refuses it
    started: list[str] = []

    def start_thread() -> None:
        started.append("thread")
        if len(started) == 1:
            raise RuntimeError

    received = ReceivedMessages(start_thread, 1, 60)
    with pytest.raises(RuntimeError):
        received.put(1)

    # When another message comes, I expect another try, and none after it
    received.put(2)
    received.put(3)
    assert len(started) == 2


def test_stopping_ends_all_threads_and_starts_no_call(broker: StubBroker, work: Work) -> None:
    # Given a busy thread and a received message that waits for one of them
    worker = MessageThreads(broker, {"work"}, 1, INTERVALS)
    worker.queue_prefetch = 2
    worker.start()
    for _ in range(2):
        work.actor.send()
    wait_for(lambda: work.started == 1 and worker.work_queue.qsize() == 1, 10, "a call and a waiting message")

    # When the worker is stopped and the call ends
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    wait_for(lambda: worker._received.is_closed, 10, "the stop")
    work.release.set()
    stopping.join(10)

    # I expect no thread to be left, and no other call
    assert not any(thread.is_alive() for thread in worker.workers)
    assert work.started == 1


def test_stopping_ends_idle_threads_at_once(broker: StubBroker, work: Work) -> None:
    # Given a thread that waits for the next message
    worker = worker_of(broker, 1)
    work.release.set()
    work.actor.send()
    wait_for(lambda: worker._received._idle == 1, 10, "an idle thread")

    # When the worker is stopped, I expect it to end although it would wait for a minute
    worker.stop()
    assert not any(thread.is_alive() for thread in worker.workers)


def test_stopping_waits_for_a_thread_that_is_being_started(
    broker: StubBroker, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a thread that processes a message already while its start has not returned
    may_return = threading.Event()
    start = WorkerThread.start

    def start_slowly(thread: WorkerThread) -> None:
        start(thread)
        assert may_return.wait(30)

    monkeypatch.setattr(WorkerThread, "start", start_slowly)
    worker = worker_of(broker, 1)
    work.actor.send()
    wait_for(lambda: work.started == 1, 10, "the call")

    # When the worker is stopped at that moment
    stopping = threading.Thread(target=worker.stop, daemon=True)
    stopping.start()
    stopping.join(0.2)
    may_return.set()

    # I expect it to wait for the message
    stopping.join(0.2)
    assert stopping.is_alive()
    work.release.set()
    stopping.join(30)
    assert not stopping.is_alive()
    assert not any(thread.is_alive() for thread in worker.workers)


def test_no_thread_is_started_after_a_stop(broker: StubBroker) -> None:
    # Given a worker that is stopped after a message has found no idle thread, and before one is started for it
    worker = worker_of(broker, 1)
    worker.stop()

    worker._start_thread()

    assert worker.workers == []
