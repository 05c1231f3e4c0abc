"""Delivers the events of streams, in order within each stream, and records the results, for many streams at a time.

A delivery holds a lease on its stream: a token, and an end by the database's clock. Under it a run of events is sent, one after
the other. Attempts are recorded with all their consequences in one transaction, which leaves out those whose lease has gone to
another token. So if a process dies between sending and recording, its leases expire and these events are sent again under the
same ids.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from typing import NamedTuple
from uuid import UUID, uuid4

from django.db.models.functions import Now

from callbacks.delivery import attempt_results, delivery_attempt, stream_rows
from callbacks.delivery.run_sender import Result, RunSender
from callbacks.delivery.sent_volume import SentVolume
from callbacks.delivery.stream_rows import LockedStreams
from callbacks.delivery.stream_scheduler import Candidate, Delivery, StreamScheduler, Turn
from callbacks.delivery.stream_secrets import SecretsCache
from callbacks.delivery.thread_limiter import ThreadLimiter
from callbacks.models import Destination, Event, Subscription
from callbacks.rules import destination_breaker
from callbacks.rules.outcome import Outcome
from orchestrator_site.base.db.transactions import release_connection, short_transaction
from orchestrator_site.base.intervals import DeliveryIntervals

MAX_ATTEMPTS = 50  # of a stream in a row, if others wait for its destination


class Claimed(NamedTuple):
    """What to send after a claim."""

    deliveries: list[Delivery]
    locked: list[int]  # another transaction has locked them or their destination, or they are deleted: to be claimed again
    must_look: bool = False  # whether some stream is due again at once


class Recorded(NamedTuple):
    """What to send after results were recorded."""

    deliveries: list[Delivery]
    locked: list[Result]  # another transaction has locked their stream or its destination: to be recorded again
    freed: frozenset[int] = frozenset()  # destinations with slots for waiting streams: to be woken after the sending
    must_look: bool = False  # whether some stream is due again at once


class Deliverer:
    """The deliveries of one process. Its methods may be called by any number of threads.

    Each delivery that `claim` and `record` return must be sent, and its result recorded, or it must be abandoned.
    """

    def __init__(
        self,
        intervals: DeliveryIntervals = DeliveryIntervals(),
        *,
        threads: ThreadLimiter | None = None,
        max_attempts: int = MAX_ATTEMPTS,
        send: Callable[..., Outcome] = delivery_attempt.send,
    ) -> None:
        self._intervals, self._max_attempts = intervals, max_attempts
        self._threads = threads or ThreadLimiter(intervals)
        self._volume = SentVolume(intervals)
        self._scheduler = StreamScheduler(intervals, self._threads, max_attempts, self._volume)
        self._sender = RunSender(intervals, self._threads, send)
        self._secrets = SecretsCache()
        self._stopping = False
        self._tokens: set[UUID] = set()  # of the leases that this process holds

    def claim(self, identities: Sequence[int]) -> Claimed:
        """Acquire leases on those of these streams that are due, not leased, and may be sent to now.

        May be called at any time, by any number of processes.

        Raises:
            DatabaseError: The database fails.
        """
        if self._stopping or not identities:
            return Claimed([], [])
        ends = time.monotonic() + self._intervals.turn
        turns = {pk: Turn(uuid4(), ends) for pk in identities}
        self._tokens.update(turn.token for turn in turns.values())
        deliveries: list[Delivery] = []
        try:
            with short_transaction():
                rows = LockedStreams(identities)
                due = [stream for stream in rows.streams.values() if _is_claimable(stream, rows.now)]
                rows.lock_destinations({stream.destination_id for stream in due})
                due = [stream for stream in due if stream.pk in rows.streams]
                due.sort(key=lambda stream: (stream.destination_id, stream.next_attempt_at, stream.pk))
                for stream in due:
                    if stream.lease_token is not None:
                        attempt_results.record_interrupted_attempt(stream)
                candidates = [Candidate(stream, turns[stream.pk], holds_slot=False) for stream in due]
                granted = self._scheduler.next_deliveries(candidates, rows.load_runs(due), rows)
                self._secrets.fill_in([delivery.event.subscription for delivery in granted])
                self._volume.promise(rows)
                rows.save()
            deliveries = granted
        finally:
            self._end(turns.values(), deliveries)
        return Claimed(deliveries, [pk for pk in identities if pk not in rows.streams], rows.must_look)

    def send(self, delivery: Delivery) -> Result:
        """Send the events of a delivery, one after the other. No database connection is held."""
        return self._sender.send(delivery)

    def record(self, results: Sequence[Result]) -> Recorded:
        """Commit attempts with all their consequences; return what to send next in the slots of these deliveries.

        Raises:
            DatabaseError: The database fails. The results may be recorded again.
        """
        if not results:
            return Recorded([], [])
        deliveries: list[Delivery] = []
        with short_transaction():
            rows = LockedStreams([result.stream for result in results])
            changed = self._changed_destinations([result for result in results if _holds_lease(result, rows)], rows)
            rows.lock_destinations(changed)
            missing = [result for result in results if result.stream not in rows.streams]
            existing = stream_rows.existing([result.stream for result in missing])
            recorded = [result for result in results if _holds_lease(result, rows)]
            attempts = [attempt for result in recorded for attempt in result.attempts]
            attempt_results.record_attempts(attempts, rows, self._intervals)
            pending = rows.load_runs([rows.streams[result.stream] for result in recorded])
            recorded.sort(key=lambda result: rows.streams[result.stream].destination_id)
            for pk, group in groupby(recorded, lambda result: rows.streams[result.stream].destination_id):
                deliveries += self._continue(list(group), rows.destinations[pk], pk in changed, pending, rows)
            self._secrets.fill_in([delivery.event.subscription for delivery in deliveries])
            self._volume.promise(rows)
            rows.save()
        locked = [result for result in missing if result.stream in existing]
        done = [result for result in results if result.stream in rows.streams or result.stream not in existing]
        self._end([result.delivery.turn for result in done], deliveries)
        for result in recorded:
            self._volume.add(result.delivery.event.subscription, result.sent_sizes, result.delivery.promised)
        self._volume.charge()
        return Recorded(deliveries, locked, _freed(done, deliveries, rows), rows.must_look)

    def abandon(self, delivery: Delivery) -> None:
        """Forget a delivery that has no result: its event is sent again when its lease has expired."""
        self._end([delivery.turn], [])

    def stop(self) -> None:
        """Start no more attempts. Those in flight may finish and are recorded."""
        self._stopping = True
        self._sender.stop()

    def release_leases(self) -> None:
        """Give up the leases on streams whose attempts are still in flight, so that other processes may deliver them at once."""
        Subscription.objects.filter(lease_token__in=list(self._tokens)).update(lease_until=Now())
        release_connection()

    def _changed_destinations(self, results: Sequence[Result], rows: LockedStreams) -> set[int]:
        """Return the destinations whose rows these results change."""
        return {
            destination.pk
            for result in results
            for destination in [rows.streams[result.stream].destination]
            for token, outcome in result.for_destination
            if attempt_results.changes_destination(destination, rows.now, token, outcome, self._intervals)
        }

    def _continue(
        self,
        results: list[Result],
        destination: Destination,
        is_changed: bool,
        pending: Mapping[int, Sequence[Event]],
        rows: LockedStreams,
    ) -> list[Delivery]:
        """Apply results to their destination; return what to send next in the slots of these deliveries."""
        if is_changed:
            outcomes = [outcome for result in results for outcome in result.for_destination]
            attempt_results.update_destination(destination, rows.now, outcomes, self._intervals)
        candidates = [self._next_of_stream(result, rows) for result in results]
        deliveries = self._scheduler.next_deliveries(candidates, pending, rows)
        if destination.waiting:
            used = {delivery.turn.token for delivery in deliveries}
            free = [result for result in results if result.delivery.turn.token not in used and self._may_pass_slot(result)]
            deliveries += self._pass_slots(free, destination, rows)
        return deliveries

    def _next_of_stream(self, result: Result, rows: LockedStreams) -> Candidate:
        turn = replace(result.delivery.turn, attempts=result.delivery.turn.attempts + len(result.outcomes))
        turn_over = self._is_out_of_time(turn) or turn.attempts >= self._max_attempts
        stream = rows.streams[result.stream]
        if (left := result.delivery.promised - len(result.outcomes)) > 0:  # the run ended early: the rest was charged, too
            stream.promised, stream.promised_at = left, rows.now
        return Candidate(stream, turn, holds_slot=True, turn_over=turn_over)

    def _pass_slots(self, free: list[Result], destination: Destination, rows: LockedStreams) -> list[Delivery]:
        """Pass slots to the longest waiting streams that are not locked; return what to send of these."""
        waiting = rows.add_waiting(destination, len(free)) if free else []
        candidates = [
            Candidate(stream, replace(result.delivery.turn, attempts=0), holds_slot=True)
            for result, stream in zip(free, waiting, strict=False)
        ]
        return self._scheduler.next_deliveries(candidates, rows.load_runs(waiting), rows)

    def _may_pass_slot(self, result: Result) -> bool:
        return result.is_accepted and not self._is_out_of_time(result.delivery.turn)

    def _is_out_of_time(self, turn: Turn) -> bool:
        return self._stopping or time.monotonic() > turn.ends

    def _end(self, turns: Iterable[Turn], deliveries: Sequence[Delivery]) -> None:
        """Give back what the turns hold that have no delivery."""
        for token in {turn.token for turn in turns} - {delivery.turn.token for delivery in deliveries}:
            self._threads.release(token)
            self._tokens.discard(token)


def _is_claimable(stream: Subscription, now: datetime) -> bool:
    """Return True if the stream is due and not leased."""
    is_due = stream.next_attempt_at is not None and stream.next_attempt_at <= now
    return is_due and (stream.lease_until is None or stream.lease_until <= now)


def _freed(results: Sequence[Result], deliveries: Sequence[Delivery], rows: LockedStreams) -> frozenset[int]:
    """Return the destinations with slots that were not passed on, or with a window that has grown, if streams wait for them."""
    used = {delivery.turn.token for delivery in deliveries}
    freed = set()
    for result in results:
        before = result.destination
        after = rows.destinations.get(before.pk, before)
        if after.waiting and (result.delivery.turn.token not in used or destination_breaker.may_get_more(before, after)):
            freed.add(after.pk)
    return frozenset(freed)


def _holds_lease(result: Result, rows: LockedStreams) -> bool:
    """Return True unless the lease has gone to another token, or the result was recorded by a commit that seemed to fail."""
    stream = rows.streams.get(result.stream)
    return stream is not None and (stream.lease_token, stream.sending) == (result.delivery.turn.token, result.event.pk)
