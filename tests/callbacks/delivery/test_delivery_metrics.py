"""Attempts and their results are counted when they are recorded."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from callbacks.delivery.stream_delivery import Deliverer
from orchestrator_site.base.measurements.metrics import (
    DISPATCHER_DEAD,
    DISPATCHER_DELIVERED,
    DISPATCHER_DURATION,
    DISPATCHER_FAILED,
    FAILURES,
)
from tests.helpers.delivery_fixtures import DEAD, DELIVERED, LOG, PATIENT, START, Stream, deliver
from tests.helpers.receiver import Answer, Receiver

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def counted() -> Callable[[], dict[str, float]]:
    """Return a function that returns what was counted since the start of the test, without zeros."""

    def counts() -> dict[str, float]:
        failures = {reason: DISPATCHER_FAILED.value(reason) for reason in FAILURES}
        attempts = DISPATCHER_DURATION.count()
        return {"attempts": attempts, "delivered": DISPATCHER_DELIVERED.value(), "dead": DISPATCHER_DEAD.value(), **failures}

    before = counts()
    return lambda: {name: value - before[name] for name, value in counts().items() if value != before[name]}


def test_delivered_events(receiver: Receiver, counted: Callable[[], dict[str, float]]) -> None:
    stream = Stream(receiver.url)
    stream.publish(START, LOG)

    stream.deliver()

    assert stream.states == [DELIVERED, DELIVERED]
    assert counted() == {"attempts": 2, "delivered": 2}


@pytest.mark.parametrize(("status", "reason"), [(302, "3xx"), (404, "4xx"), (503, "5xx")])
def test_a_failed_attempt(receiver: Receiver, counted: Callable[[], dict[str, float]], status: int, reason: str) -> None:
    receiver.will(Answer(status))
    stream = Stream(receiver.url)
    stream.publish()

    stream.deliver()

    assert counted() == {"attempts": 1, reason: 1}


def test_an_attempt_without_an_answer(receiver: Receiver, counted: Callable[[], dict[str, float]]) -> None:
    receiver.will(Answer(fault="reset"))
    stream = Stream(receiver.url)
    stream.publish()

    stream.deliver()

    assert counted() == {"attempts": 1, "no_answer": 1}


def test_an_event_that_is_refused_for_good(receiver: Receiver, counted: Callable[[], dict[str, float]]) -> None:
    receiver.will(Answer(410))
    stream = Stream(receiver.url)
    stream.publish()

    stream.deliver()

    assert stream.states == [DEAD]
    assert counted() == {"attempts": 1, "4xx": 1, "dead": 1}


def test_events_that_expire(receiver: Receiver, counted: Callable[[], dict[str, float]]) -> None:
    stream = Stream(receiver.url)
    stream.publish(START, LOG)
    stream.age(timedelta(days=2))

    stream.deliver()

    assert stream.states == [DEAD, DEAD]
    assert counted() == {"dead": 2}


def test_an_attempt_whose_process_was_killed(receiver: Receiver, counted: Callable[[], dict[str, float]]) -> None:
    # Given a process that has claimed an event, and is killed before it has recorded the attempt
    stream = Stream(receiver.url)
    stream.publish()
    stream.deliverer.claim([stream.pk])
    stream.expire_lease()

    # When another one delivers it
    deliver(Deliverer(PATIENT), stream.pk)

    assert counted() == {"interrupted": 1, "attempts": 1, "delivered": 1}
