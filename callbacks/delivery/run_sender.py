"""Sends the events of a delivery: a run, that is, one event or a few consecutive ones of a stream, one after the other."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from callbacks import signing
from callbacks.cloudevents import Envelope
from callbacks.delivery.stream_scheduler import Delivery
from callbacks.delivery.thread_limiter import ThreadLimiter
from callbacks.models import Destination, Event
from callbacks.rules.hidden_secrets import hide_secrets
from callbacks.rules.outcome import Outcome
from orchestrator_site.base.intervals import DeliveryIntervals

_UNREADABLE: Final = "not sent: the URL cannot be decrypted with ENCRYPTION_KEYS"


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What came of a delivery."""

    delivery: Delivery
    outcomes: Sequence[Outcome]  # of the events that were sent, in order; all but the last were accepted
    was_sent: bool = True

    @property
    def event(self) -> Event:
        """The first event that was sent."""
        return self.delivery.event

    @property
    def attempts(self) -> list[tuple[Event, Outcome]]:
        """The events that were sent, with their outcomes. The rest of the run is as if it had not been in it."""
        return list(zip(self.delivery.events, self.outcomes, strict=False))

    @property
    def sent_sizes(self) -> list[int]:
        """The sizes of the bodies that were sent to the destination."""
        return [len(event.body) for event, outcome in self.attempts if self.was_sent and not outcome.by_service]

    @property
    def is_accepted(self) -> bool:
        """Whether the destination accepted all events that were sent."""
        return self.outcomes[-1].accepted

    @property
    def stream(self) -> int:
        """The key of its stream."""
        return self.delivery.event.subscription_id

    @property
    def destination(self) -> Destination:
        """The destination as it was when the delivery was granted."""
        return self.delivery.event.subscription.destination

    @property
    def for_destination(self) -> list[tuple[UUID, Outcome | None]]:
        """What each outcome says about the destination (nothing if it was not sent to it), with the token of the delivery."""
        token = self.delivery.turn.token
        return [(token, outcome if self.was_sent and not outcome.by_service else None) for outcome in self.outcomes]


class RunSender:
    """The sending of one process. `send` may be called by any number of threads."""

    def __init__(self, intervals: DeliveryIntervals, threads: ThreadLimiter, post: Callable[..., Outcome]) -> None:
        self._intervals, self._threads, self._post = intervals, threads, post
        self._stopping = False

    def stop(self) -> None:
        """Send no more events. Those in flight may finish."""
        self._stopping = True

    def send(self, delivery: Delivery) -> Result:
        """Send the events of a run until one is not accepted, or the run has to end. No database connection is held."""
        if not delivery.event.subscription.url:
            return Result(delivery, [Outcome(time=delivery.now, latency_ms=0, error=_UNREADABLE)], was_sent=False)
        ends = min(time.monotonic() + self._intervals.run, delivery.send_by)
        outcomes = [self._send_event(delivery, delivery.event)]
        for event in delivery.following:
            if not (outcomes[-1].accepted and self._may_continue(delivery, ends)):
                break
            try:
                outcomes.append(self._send_event(delivery, event))
            except Exception:
                break  # to be recorded without it: it fails again as the first of the next run, and that is reported
        return Result(delivery, outcomes)

    def _may_continue(self, delivery: Delivery, ends: float) -> bool:
        """Return True if another event of the run may be sent: it would not delay a stop, other streams or other destinations."""
        is_fast = self._threads.is_fast(delivery.event.subscription.destination)
        return is_fast and time.monotonic() < ends and not self._stopping

    def _send_event(self, delivery: Delivery, event: Event) -> Outcome:
        """Send the frozen bytes of an event, signed with the time of the delivery."""
        subscription, body, identity = delivery.event.subscription, bytes(event.body), str(event.pk)
        envelope = Envelope(
            id=identity,
            source=event.source,
            type=event.type,
            subject=subscription.subject,
            time=event.time,
            jobsequence=event.sequence,
        )
        given = subscription.headers or {}
        headers = given | envelope.headers()
        if keys := [key for key in (subscription.key, subscription.previous_key) if key is not None]:
            headers |= signing.headers(keys, identity, int(delivery.now.timestamp()), body)
        with self._threads.attempt(delivery.turn.token, subscription.destination):
            outcome = self._post(subscription.url, headers, body, self._intervals)
        return replace(outcome, answer=hide_secrets(outcome.answer, subscription.url, given, keys))
