"""Dramatiq's worker with threads that are started when messages need them and wait without waking up.

Dramatiq starts all of its threads at once, and each of them wakes up every second. 512 idle threads took 2.7% of a core and
15 MB.
"""

import threading
from collections.abc import Callable
from queue import PriorityQueue
from typing import Any

import dramatiq
from dramatiq.common import q_name
from dramatiq.worker import WorkerThread

from orchestrator_site.base.intervals import BrokerIntervals


class MessageThreads(dramatiq.Worker):
    """At most `max_threads` threads that consume `queues`.

    They receive no more messages than there may be threads: another process could handle the rest.
    """

    def __init__(self, broker: dramatiq.Broker, queues: set[str], max_threads: int, intervals: BrokerIntervals) -> None:
        super().__init__(broker, queues=queues, worker_timeout=round(intervals.stop_check * 1000), worker_threads=0)
        self.queue_prefetch = max_threads
        self._received = ReceivedMessages(self._start_thread, max_threads, intervals.thread_idle)
        self.work_queue = self._received
        self._starting = threading.Lock()

    def stop(self, *args: Any, **options: Any) -> None:
        """Stop as Dramatiq does: messages that no thread has taken return to their queues."""
        with self._starting:  # no thread is started from now on, and each that was is among those to wait for
            self._received.close()
        super().stop(*args, **options)

    def _add_consumer(self, queue_name: str, *, delay: bool = False) -> None:
        if queue_name == q_name(queue_name):  # not for delayed messages: the service sends none
            super()._add_consumer(queue_name, delay=delay)

    def _start_thread(self) -> None:
        with self._starting:
            if self._received.is_closed:
                return
            self.workers = [thread for thread in self.workers if thread.is_alive()]
            thread = _MessageThread(
                broker=self.broker, consumers=self.consumers, work_queue=self._received, worker_timeout=self.worker_timeout
            )
            thread.start()
            self.workers.append(thread)


class NoMoreMessages(Exception):
    """The thread that waits for a message is to end, and is no longer counted."""


class _MessageThread(WorkerThread):
    work_queue: "ReceivedMessages"

    def run(self) -> None:
        try:
            super().run()
        except NoMoreMessages:
            return
        except BaseException:
            self.work_queue.thread_failed()
            raise


class ReceivedMessages(PriorityQueue[Any]):
    """The queue between the consumers and the threads of a worker."""

    def __init__(self, start_thread: Callable[[], object], max_threads: int, idle_seconds: float) -> None:
        """Call `start_thread` when a message finds no idle thread. A thread ends when it was idle for `idle_seconds`."""
        super().__init__()
        self._start_thread = start_thread
        self._max_threads = max_threads
        self._idle_seconds = idle_seconds
        self._threads = 0  # those that will still ask for a message: one that is about to end is alive, but does not count
        self._idle = 0
        self.is_closed = False

    def close(self) -> None:
        """End all threads that wait for a message, and each of the others when it has processed its message."""
        with self.mutex:
            self.is_closed = True
            self.not_empty.notify_all()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._start_thread_if_needed()

    def thread_failed(self) -> None:
        """Count out a thread that ended by an exception, and start another if messages wait."""
        with self.mutex:
            self._threads -= 1
        self._start_thread_if_needed()

    def _start_thread_if_needed(self) -> None:
        """Raise the error if the thread cannot be started: Dramatiq then starts the consumer again, which frees its prefetch."""
        with self.mutex:
            if self.is_closed or self._qsize() <= self._idle or self._threads >= self._max_threads:
                return
            self._threads += 1
        try:
            self._start_thread()
        except BaseException:
            with self.mutex:
                self._threads -= 1
            raise

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: ARG002 - Dramatiq's would wake up
        """Return the next message. Raise `NoMoreMessages` if there is none for too long."""
        if not block:  # Dramatiq empties the queue when it stops
            return super().get(block=False)
        with self.not_empty:
            self._idle += 1
            try:
                self.not_empty.wait_for(lambda: self.is_closed or self._qsize(), self._idle_seconds)
            finally:
                self._idle -= 1
            if self.is_closed or not self._qsize():
                self._threads -= 1
                raise NoMoreMessages
            return self._get()
