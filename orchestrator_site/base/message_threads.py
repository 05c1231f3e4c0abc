"""Dramatiq's worker with threads that are started when messages need them and wait without waking up.

Dramatiq starts all of its threads at once, and each of them wakes up every second. 512 idle threads took 2.7% of a core and
15 MB.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import PriorityQueue
from typing import Any

import dramatiq
from dramatiq.common import q_name
from dramatiq.worker import WorkerThread

from orchestrator_site.base.intervals import BrokerIntervals


class MessageThreads(dramatiq.Worker):
    """At most `threads` threads that consume `queues`.

    They receive no more messages than there may be threads: another process could handle the rest.
    """

    def __init__(self, broker: dramatiq.Broker, queues: set[str], threads: int, intervals: BrokerIntervals) -> None:
        super().__init__(broker, queues=queues, worker_timeout=round(intervals.idle_check * 1000), worker_threads=0)
        self._max_threads = threads
        self.queue_prefetch = threads
        self._received = ReceivedMessages(self._add_thread, intervals.thread_idle)
        self.work_queue = self._received

    def stop(self, *args: Any, **options: Any) -> None:
        """Stop as Dramatiq does: messages that no thread has taken return to their queues."""
        self._received.close()
        super().stop(*args, **options)

    def _add_consumer(self, queue_name: str, *, delay: bool = False) -> None:
        if queue_name == q_name(queue_name):  # not for delayed messages: the service sends none
            super()._add_consumer(queue_name, delay=delay)

    def _add_thread(self) -> None:
        self.workers = [thread for thread in self.workers if thread.is_alive()]
        if len(self.workers) < self._max_threads:
            thread = _MessageThread(
                broker=self.broker, consumers=self.consumers, work_queue=self._received, worker_timeout=self.worker_timeout
            )
            thread.start()
            self.workers.append(thread)


class NoMoreMessages(Exception):
    """The thread that waits for a message is to end."""


class _MessageThread(WorkerThread):
    def run(self) -> None:
        with suppress(NoMoreMessages):
            super().run()


class ReceivedMessages(PriorityQueue[Any]):
    """The queue between the consumers and the threads of a worker."""

    def __init__(self, add_thread: Callable[[], object], idle_seconds: float) -> None:
        """Call `add_thread` when a message finds no idle thread. A thread ends when it was idle for `idle_seconds`."""
        super().__init__()
        self._add_thread = add_thread
        self._idle_seconds = idle_seconds
        self._idle = 0
        self._adding = threading.Lock()
        self._closed = False

    def close(self) -> None:
        """End all threads that wait for a message, and each of the others when it has processed its message."""
        with self.mutex:
            self._closed = True
            self.not_empty.notify_all()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        with self._adding:
            with self.mutex:
                lacks_thread = self._qsize() > self._idle and not self._closed
            if lacks_thread:
                self._add_thread()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: ARG002 - Dramatiq's would wake up
        """Return the next message. Raise `NoMoreMessages` if there is none for too long."""
        if not block:  # Dramatiq empties the queue when it stops
            return super().get(block=False)
        with self.not_empty:
            self._idle += 1
            try:
                self.not_empty.wait_for(lambda: self._closed or self._qsize(), self._idle_seconds)
            finally:
                self._idle -= 1
            if self._closed or not self._qsize():
                raise NoMoreMessages
            return self._get()
