"""The threads of a `deliver` process: one that claims and records, and those that send.

The one thread takes all results that are there, records them in one transaction, claims what is due, and hands everything to the
threads that send. Meanwhile more results arrive, so batches grow with the load. A result waits for others in flight, but only for
a few milliseconds.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

from callbacks import delivery_hints
from callbacks.delivery import destination_queue, due_streams
from callbacks.delivery.run_sender import Result
from callbacks.delivery.stream_delivery import Deliverer
from callbacks.delivery.stream_scheduler import Delivery
from callbacks.delivery.thread_limiter import THREADS
from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE, one_connection
from orchestrator_site.base.intervals import DeliveryIntervals
from orchestrator_site.base.log_context import log_context

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


class Dispatcher:
    """Delivers what is due with at most `threads` deliveries at once. `wake` makes it look for due streams."""

    def __init__(
        self, deliverer: Deliverer, intervals: DeliveryIntervals = DeliveryIntervals(), *, threads: int = THREADS
    ) -> None:
        self._deliverer, self._intervals, self._max_threads = deliverer, intervals, threads
        self._arrivals: SimpleQueue[Result | Delivery | None] = SimpleQueue()  # a delivery has failed; None only wakes
        self._departures: SimpleQueue[Delivery | None] = SimpleQueue()  # None ends a thread
        self._senders: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        self._stopping = False
        # The rest belongs to that thread.
        self._results: list[Result] = []  # to be recorded
        self._in_flight = 0  # deliveries that are not recorded
        self._look = True  # whether there may be due streams
        self._freed: set[int] = set()  # destinations with slots for waiting streams
        self._hint = False  # whether other processes have to look for due streams
        self._locked: list[int] = []  # due streams that were found locked, until all others were looked at
        self._next_look = 0.0  # by the monotonic clock, even if no hint has come
        self._pause = 0.0  # before the next round, if nothing arrives earlier

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Look for due streams soon. Returns at once."""
        self._look = True
        self._arrivals.put(None)

    def stop(self, seconds: float) -> None:
        """Start no more deliveries. Wait until those in flight are recorded, at most for `seconds`, and give up the others."""
        self._stopping = True
        self._deliverer.stop()
        self.wake()
        self._thread.join(seconds)
        for _ in self._senders:
            self._departures.put(None)
        self._deliverer.release_leases()

    def _run(self) -> None:
        while not self._stopping or self._in_flight:
            self._collect()
            self._pause = self._intervals.look
            try:
                self._start_senders()
                with one_connection():
                    results, self._results = self._results, []
                    self._isolate_faults(self._record, results)
                    must_look = self._look or time.monotonic() >= self._next_look
                    if must_look and self._in_flight < self._max_threads and not self._stopping:
                        self._claim_due()
                    self._wake_others()
            except Exception as error:
                self._postpone(error)

    def _collect(self) -> None:
        """Wait until something arrives or the pause is over. Take everything that is there, and results that are about to come.

        Twice as many results in a transaction save a third of the CPU of a delivery.
        """
        with suppress(Empty):
            self._take(self._arrivals.get(timeout=self._pause))
            ends = time.monotonic() + self._intervals.gather
            while True:
                is_complete = not self._results or len(self._results) >= self._in_flight
                left = 0.0 if is_complete else ends - time.monotonic()
                self._take(self._arrivals.get(timeout=left) if left > 0 else self._arrivals.get_nowait())

    def _take(self, arrived: Result | Delivery | None) -> None:
        if isinstance(arrived, Result):
            self._results.append(arrived)
        elif arrived is not None:
            self._abandon(arrived)

    def _record(self, results: list[Result]) -> None:
        try:
            recorded = self._deliverer.record(results)
        except DATABASE_UNAVAILABLE as error:
            self._results += results
            self._postpone(error)
            return
        except Exception:
            if len(results) == 1:
                self._abandon(results[0].delivery)
            raise
        self._in_flight -= len(results) - len(recorded.locked)
        self._send(recorded.deliveries)
        self._freed |= recorded.freed
        self._hint |= recorded.must_look
        if recorded.locked:
            self._results += recorded.locked
            self._pause = self._intervals.locked

    def _claim_due(self) -> None:
        free = self._max_threads - self._in_flight
        self._look = False  # before the look: `wake` may set it meanwhile
        self._next_look = time.monotonic() + self._intervals.look
        due = due_streams.due(free, but=self._locked)
        if len(due) == free:
            self._look_again(0.0)
        elif self._locked:
            self._locked = []
            self._look_again(self._intervals.locked)
        self._isolate_faults(self._claim, due)

    def _claim(self, streams: list[int]) -> None:
        claimed = self._deliverer.claim(streams)
        self._send(claimed.deliveries)
        self._hint |= claimed.must_look
        if claimed.locked:
            self._locked += claimed.locked
            self._look_again(self._intervals.locked)

    def _wake_others(self) -> None:
        """Wake streams and processes, now that all that was granted is being sent: this may wait for the database or for Redis.

        If the database fails, the relay wakes these streams.
        """
        if not (self._freed or self._hint):
            return
        freed, self._freed = self._freed, set()
        hint, self._hint = self._hint, False
        self._freed = {pk for pk in sorted(freed) if not destination_queue.wake_waiting(pk)}
        if hint:
            delivery_hints.send()
        self._look_again(min(self._pause, self._intervals.locked))

    def _look_again(self, pause: float) -> None:
        self._look, self._pause = True, pause

    def _postpone(self, error: Exception) -> None:
        """Try again after a while, whatever failed."""
        if isinstance(error, DATABASE_UNAVAILABLE):
            logger.warning("the database does not answer: %s", error)
        else:
            logger.error("an unexpected error in the dispatcher", exc_info=error)
        self._look_again(self._intervals.database_retry)

    def _isolate_faults(self, work: Callable[[list[Item]], None], items: list[Item]) -> None:
        """Call `work` with all items, or with one at a time if that fails: a faulty row must not hold up the others."""
        if not items:
            return
        try:
            work(items)
        except DATABASE_UNAVAILABLE:
            raise
        except Exception as error:
            if len(items) == 1:
                with log_context(**_log_fields(items[0])):
                    self._postpone(error)
            else:
                for item in items:
                    self._isolate_faults(work, [item])

    def _send(self, deliveries: list[Delivery]) -> None:
        """Hand deliveries to threads."""
        for delivery in deliveries:
            self._departures.put(delivery)
            self._in_flight += 1
        self._start_senders()

    def _start_senders(self) -> None:
        """Have as many threads as were ever needed at once. If no more can be started, try again later: the others go on."""
        try:
            while len(self._senders) < self._in_flight:
                thread = threading.Thread(target=self._send_all, name=f"sender {len(self._senders)}", daemon=True)
                thread.start()
                self._senders.append(thread)
        except RuntimeError as error:
            self._postpone(error)

    def _send_all(self) -> None:
        while (delivery := self._departures.get()) is not None:
            with log_context(**_log_fields(delivery)):
                self._arrivals.put(self._sent(delivery))

    def _sent(self, delivery: Delivery) -> Result | Delivery:
        """Send a delivery and return its result, or the delivery if it has none: its events are sent again later."""
        if time.monotonic() > delivery.send_by:  # nothing is lost: it is sent again when its lease has expired
            logger.warning("a delivery was given up: its lease was nearly over before it was sent")
            return delivery
        try:
            return self._deliverer.send(delivery)
        except Exception:
            logger.exception("an unexpected error in a delivery")
            return delivery

    def _abandon(self, delivery: Delivery) -> None:
        self._in_flight -= 1
        self._deliverer.abandon(delivery)


def _log_fields(item: object) -> dict[str, str]:
    """Return the members of log lines about a delivery, its result, or a stream that was to be claimed."""
    match item:
        case Result():
            return _log_fields(item.delivery)
        case Delivery():
            return {"job": item.event.subscription.subject, "event": str(item.event.pk)}
        case _:
            return {"stream": str(item)}
