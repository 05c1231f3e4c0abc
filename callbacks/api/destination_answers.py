"""The responses of the API about destinations, the origins that events are sent to."""

from typing import Any

from callbacks.operators import destinations
from callbacks.operators.destinations import MAX_WAITING_COUNTED
from callbacks.rules import destination_breaker
from callbacks.rules.destination_breaker import BreakerState
from orchestrator_site.base.http.fields import Boolean, Choice, Integer, Text, Time
from orchestrator_site.base.http.serializers import AnswerSerializer


class Redelivering(AnswerSerializer):
    """Events that died between these times are being sent again."""

    since = Time(source="revive_since")
    until = Time(source="revive_until")

    def to_representation(self, instance: Any) -> Any:
        return super().to_representation(instance) if instance.revive_since and instance.revive_until else None


class DestinationSummary(AnswerSerializer):
    """A destination in a list."""

    id = Integer(1, source="pk")
    origin = Text(help_text="Scheme, host and port.")
    paused = Boolean(help_text="Whether an operator has paused deliveries.")
    breaker = Choice(
        tuple(BreakerState),
        source="*",
        show=lambda row: destination_breaker.state(row, row.now),
        help_text="`open`: nothing is sent; `half_open`: one probe at a time.",
    )
    failures = Integer(0, help_text="Consecutive attempts without a response or with a 5xx.")
    openUntil = Time(source="open_until", required=False, help_text="When the breaker becomes half open.")
    throttledUntil = Time(source="throttled_until", required=False, help_text="After a 429, nothing is sent before this time.")
    limitedUntil = Time(
        source="limited_until",
        required=False,
        help_text="Nothing is sent before this time, because it got as many events as it may; in the past: it can get some.",
    )
    slow = Boolean(
        source="*",
        show=destination_breaker.is_slow,
        help_text="Whether responses take more than a second; deliveries to slow destinations share some of the threads.",
    )
    atOnce = Integer(
        1,
        source="*",
        show=destinations.max_in_flight,
        help_text="The maximum number of concurrent deliveries: lower after failures and slow responses, higher after fast ones.",
    )
    redelivering = Redelivering(source="*", required=False, help_text="Dead events that are being redelivered.")


class Destination(DestinationSummary):
    """A destination, with what is being sent and what waits."""

    underWay = Integer(0, source="load.in_flight", help_text="Deliveries in flight.")
    waiting = Integer(
        0, MAX_WAITING_COUNTED, source="load.waiting", help_text="Jobs whose events wait; counted up to the maximum."
    )
