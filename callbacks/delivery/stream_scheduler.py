"""Decides what streams do next: send an event now, or wait, and for what."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from uuid import UUID

from callbacks.delivery import attempt_results, destination_queue, destination_rows
from callbacks.delivery.sent_volume import SentVolume
from callbacks.delivery.stream_rows import LockedStreams
from callbacks.delivery.thread_limiter import ThreadLimiter
from callbacks.models import Event, Subscription
from callbacks.rules import destination_breaker
from orchestrator_site.base.intervals import DeliveryIntervals


@dataclass(frozen=True, slots=True)
class Turn:
    """The use that a delivery makes of its slot: some events of a stream, then those of streams that wait for the slot."""

    token: UUID  # holds the lease on the stream, and the slot
    ends: float  # by the monotonic clock: then streams of other destinations come first
    attempts: int = 0  # of the current stream


@dataclass(frozen=True, slots=True)
class Delivery:
    """The right to send a run of events now."""

    turn: Turn
    event: Event  # the first, with its subscription and that one's destination
    now: datetime  # the database's time when the lease was granted
    send_by: float  # by the monotonic clock: a later attempt might outlast the lease
    following: Sequence[Event] = ()  # each may be sent once the one before it was accepted
    promised: int = 0  # how many of the events were promised to the stream

    @property
    def events(self) -> list[Event]:
        """All events of the run."""
        return [self.event, *self.following]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stream that may get a turn."""

    stream: Subscription
    turn: Turn
    holds_slot: bool  # at the destination: from its last event, or passed on by another stream
    turn_over: bool = False  # other streams come first


class StreamScheduler:
    """The transitions of streams between their states, in a transaction with their rows locked. The caller saves the rows.

    `next_attempt_at` is when a stream has to be looked at; `lease_token` is set while a delivery holds it, and with it a slot at
    its destination; `waiting_since` is set while it is parked in the queue of its destination.
    """

    def __init__(self, intervals: DeliveryIntervals, threads: ThreadLimiter, max_attempts: int, volume: SentVolume) -> None:
        self._intervals, self._threads, self._max_attempts, self._volume = intervals, threads, max_attempts, volume

    def next_deliveries(
        self, candidates: Sequence[Candidate], pending: Mapping[int, Sequence[Event]], rows: LockedStreams
    ) -> list[Delivery]:
        """Return what may be sent now: the first pending events of streams, or nothing. The first rule that applies decides:

        1. No event is pending: the stream sleeps until one is published.
        2. The first event has expired, because more have than one transaction marks as dead: the stream is requeued.
        3. The first event is due later: the stream sleeps until then.
        4. The turn of this stream is over: it is parked if others wait for its destination, else requeued.
        5. The destination is blocked (paused, breaker open, throttled, at its limit), or streams wait for it that came earlier:
           parked.
        6. One of the stream's owners is at its limit: the stream is promised a time for as many events as might be sent now, and
           sleeps until then. It gets no other promise until it has sent something.
        7. No thread may wait for this destination now: the stream sleeps for a few seconds.
        8. The destination has no free slot, and the stream holds none: parked.
        9. The stream gets the lease, and the event is sent, followed by others if the destination is fast.

        Args:
            candidates: Streams in the order in which they get slots.
            pending: The first pending events of each stream that has one.
            rows: The locked rows, with the destinations of candidates that hold no slot, or that may be the first to be parked.
        """
        deliveries = []
        for candidate in candidates:
            events = pending.get(candidate.stream.pk, ())
            if events and events[0].expires_at <= rows.now:
                events = self._first_unexpired(candidate.stream, rows)
            delivery = self._next_delivery(candidate, events, rows)
            if delivery is not None:
                deliveries.append(delivery)
        return deliveries

    def _next_delivery(self, candidate: Candidate, events: Sequence[Event], rows: LockedStreams) -> Delivery | None:
        stream, holds_slot, turn_over, now = candidate.stream, candidate.holds_slot, candidate.turn_over, rows.now
        destination, event = stream.destination, events[0] if events else None
        if event is None:
            self._sleep(stream, until=None)
        elif event.expires_at <= now:
            self._requeue(stream, rows)
        elif event.next_attempt_at is not None and event.next_attempt_at > now:
            self._sleep(stream, until=event.next_attempt_at)
        elif turn_over and not destination.waiting:
            self._requeue(stream, rows)
        elif turn_over or destination_breaker.is_blocked(destination, now) or (not holds_slot and _comes_later(stream)):
            self._park(stream, event, since=now if holds_slot else None)
        elif stream.promised_at is not None and stream.promised_at > now:
            self._sleep(stream, until=stream.promised_at)
        elif stream.promised_at is None and self._volume.is_at_limit(stream, now):
            rows.at_limit.append((stream, [len(event.body) for event in self._run(candidate, events, now)]))
            self._sleep(stream, until=now)  # unless `SentVolume.promise` finds a later time
        elif not self._threads.acquire(candidate.turn.token, destination):
            self._sleep(stream, until=now + timedelta(seconds=random.uniform(*self._intervals.thread_wait)))  # noqa: S311 - spreads load
        elif not (holds_slot or self._acquire_slot(stream, candidate.turn.token, rows)):
            self._threads.release(candidate.turn.token)
            self._park(stream, event, since=None)
        else:
            return self._grant(candidate, events, rows)
        return None

    @staticmethod
    def _first_unexpired(stream: Subscription, rows: LockedStreams) -> Sequence[Event]:
        """Mark expired events as dead, and return the first pending ones. They are expired themselves if there are many."""
        attempt_results.mark_expired_dead(stream, rows.now)
        return rows.load_runs([stream]).get(stream.pk, ())

    def _grant(self, candidate: Candidate, events: Sequence[Event], rows: LockedStreams) -> Delivery:
        stream, token, now = candidate.stream, candidate.turn.token, rows.now
        run = self._run(candidate, events, now)
        # A parked stream was due only when its event expires. Now it is due as soon as the lease is over.
        stream.next_attempt_at, stream.waiting_since = min(stream.next_attempt_at or now, now), None
        stream.lease_token, stream.lease_until = token, now + timedelta(seconds=self._intervals.lease)
        stream.sending, stream.sending_since = run[0].pk, now
        promised, stream.promised, stream.promised_at = stream.promised, 0, None
        if self._threads.is_fast(stream.destination):
            self._threads.release(token)
        for sent in run:
            sent.subscription = stream
        send_by = rows.began + self._intervals.lease - self._intervals.answer
        return Delivery(candidate.turn, run[0], now, send_by, run[1:], promised)

    def _run(self, candidate: Candidate, events: Sequence[Event], now: datetime) -> list[Event]:
        """Return the events that may be sent before a result is recorded."""
        following = takewhile(lambda event: _may_be_sent(event, now), events[1 : self._max_run(candidate)])
        return [events[0], *following]

    def _max_run(self, candidate: Candidate) -> int:
        """Return how many events may be sent before a result is recorded.

        One to a destination that is not fast: it is new, slow, failing, or this is the probe of a half-open breaker. One after a
        lease that expired, too: an event that crashes each process is soon the first, and no others are repeated with it.
        """
        if not self._threads.is_fast(candidate.stream.destination):
            return 1
        if candidate.stream.lease_token not in (None, candidate.turn.token):
            return 1
        return self._max_attempts - candidate.turn.attempts

    def _acquire_slot(self, stream: Subscription, token: UUID, rows: LockedStreams) -> bool:
        """Acquire a slot at the destination, whose row is locked. Return False if none is free."""
        destination = stream.destination
        if destination.pk not in rows.free_slots:
            in_flight = destination_rows.in_flight(destination, rows.now)
            limit = destination_rows.max_in_flight()
            rows.free_slots[destination.pk] = destination_breaker.free_slots(destination, rows.now, in_flight, limit)
        if not rows.free_slots[stream.destination_id]:
            return False
        rows.free_slots[stream.destination_id] -= 1
        if destination_breaker.start_delivery(stream.destination, rows.now, token, self._intervals):
            stream.destination.save(update_fields=destination_rows.BREAKER_FIELDS)
        return True

    def _requeue(self, stream: Subscription, rows: LockedStreams) -> None:
        """Make the stream due now, behind others that became due earlier."""
        self._sleep(stream, until=rows.now)
        rows.must_look = True

    def _park(self, stream: Subscription, event: Event, since: datetime | None) -> None:
        """Put the stream in the queue of its destination, until it is woken or its first event expires.

        Its position is that of the time when it became due, unless it has just used a slot: then it is `since`.
        """
        self._sleep(stream, until=event.expires_at, waiting_since=stream.waiting_since or since or stream.next_attempt_at)
        if not stream.destination.waiting:
            destination_queue.start_queue(stream.destination_id)
            stream.destination.waiting = True

    @staticmethod
    def _sleep(stream: Subscription, until: datetime | None, waiting_since: datetime | None = None) -> None:
        """Give up the lease, if there is one, and make the stream due at `until`."""
        stream.next_attempt_at, stream.waiting_since = until, waiting_since
        stream.lease_token = stream.lease_until = stream.sending = stream.sending_since = None


def _may_be_sent(event: Event, now: datetime) -> bool:
    """Return True if the event has not expired and is not due later, as it may be when an earlier one is redelivered."""
    return event.expires_at > now and (event.next_attempt_at is None or event.next_attempt_at <= now)


def _comes_later(stream: Subscription) -> bool:
    """Return True if streams wait for the destination, and this one is not among them."""
    return stream.waiting_since is None and stream.destination.waiting
