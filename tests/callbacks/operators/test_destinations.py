"""Operators see the condition of destinations, and pause, resume and reset them."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from callbacks.delivery import destination_rows, due_streams
from callbacks.models import Destination, Subscription
from callbacks.operators import destinations
from tests.helpers.delivery_fixtures import (
    DEAD,
    DELIVERED,
    EXIT,
    PENDING,
    START,
    Gate,
    deliver_all,
    delivering,
    relay_and_deliver,
    sent,
    streams_to,
    time_passes,
)
from tests.helpers.receiver import Answer, Receiver

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("values", "condition"),
    [
        ({}, "healthy"),
        ({"failures": 4}, "healthy"),
        ({"slowness": 2}, "slow"),
        ({"open_until": timedelta(seconds=1)}, "breaker open"),
        ({"open_until": timedelta(0), "slowness": 2}, "breaker half open"),
        ({"throttled_until": timedelta(0)}, "healthy"),
        ({"throttled_until": timedelta(seconds=1), "open_until": timedelta(seconds=1)}, "throttled"),
        ({"limited_until": timedelta(0)}, "healthy"),
        ({"limited_until": timedelta(seconds=1)}, "at its limit"),
        ({"paused": True, "throttled_until": timedelta(seconds=1)}, "paused"),
    ],
)
def test_the_condition_of_a_destination(values: dict[str, Any], condition: str) -> None:
    now = timezone.now()
    moments = {name: now + value if isinstance(value, timedelta) else value for name, value in values.items()}
    Destination.objects.create(origin="https://hook.example:443", used_at=now, **moments)
    destination = destination_rows.with_database_time().get()
    destination.now = now
    assert destinations.condition(destination) == condition


def test_a_destination_that_was_deleted_is_not_acted_on() -> None:
    assert [act(2**40) for act in (destinations.pause, destinations.resume, destinations.reset)] == [False] * 3


def test_a_paused_host_gets_nothing_until_it_is_resumed(receiver: Receiver) -> None:
    # Given a host that is paused while a delivery is in flight
    streams = streams_to(receiver.url, 3, START, EXIT)
    destination = streams[0].row.destination_id
    gate = Gate(receiver)
    with delivering(streams[0]):
        gate.wait_for(1)
        destinations.pause(destination)
        gate.open()

    # When time passes, I expect that delivery to have ended, and nothing else to be sent
    time_passes(3600)
    relay_and_deliver()
    assert sent(receiver) == [("job-0", 1)]
    assert streams[0].states == [DELIVERED, PENDING]

    # and events to expire
    streams[1].age(timedelta(days=1))
    Subscription.objects.filter(pk=streams[1].pk).update(next_attempt_at=Now())
    relay_and_deliver()
    assert streams[1].states == [DEAD, DEAD]

    # and the others to arrive once it is resumed
    destinations.resume(destination)
    assert streams[0].pk in due_streams.due(10)
    deliver_all(streams[0], streams[2])
    receiver.check_order()


def test_a_reset_host_is_tried_at_once(receiver: Receiver) -> None:
    # Given a blocked host: it has left one stream unanswered, asked another to wait, and then its breaker has opened
    unanswered, throttled, waiting = streams_to(receiver.url, 3)
    receiver.will(*[Answer(fault="reset")] * 4, Answer(429, {"Retry-After": "500"}))
    unanswered.deliver()
    unanswered.retry_now(3)
    throttled.deliver()
    Destination.objects.update(open_until=timezone.now() + timedelta(seconds=500), failures=5, openings=4)
    waiting.deliver()
    relay_and_deliver()
    assert len(receiver.requests) == 5

    # When it is reset
    destinations.reset(unanswered.row.destination_id)

    # I expect what it left unanswered to be tried now, and what waited for it
    deliver_all(unanswered, waiting)

    # and the event that it answered with 429 to be sent when it asked for it
    assert (throttled.states, len(receiver.requests)) == ([PENDING], 7)
    assert throttled.due_in > 400
