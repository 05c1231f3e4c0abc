"""Consecutive events of a stream are sent one after the other under one lease, and recorded together."""

import time
import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from callbacks import cloudevents, outbox
from callbacks.delivery import delivery_attempt, due_streams
from callbacks.delivery.run_sender import Result
from callbacks.delivery.stream_delivery import Deliverer
from callbacks.delivery.stream_rows import MAX_RUN
from callbacks.delivery.stream_scheduler import Delivery
from callbacks.delivery.thread_limiter import ThreadLimiter
from callbacks.models import Attempt, Destination, Event
from callbacks.operators import destinations, redelivery
from callbacks.rules.outcome import Outcome
from tests.helpers.delivery_fixtures import (
    DEAD,
    DELIVERED,
    EXIT,
    IMPATIENT,
    LOG,
    PATIENT,
    PENDING,
    START,
    Stream,
    deliver_all,
    in_threads,
    parked,
    streams_to,
)
from tests.helpers.receiver import Answer, Received, Receiver

pytestmark = pytest.mark.django_db(transaction=True)

# For a stream with a backlog of two runs: a claim, and the record of each run (tests/callbacks/delivery/test_batches.py).
CLAIM_AND_TWO_RECORDS = 7 + 2 * 6


@pytest.fixture
def fast(receiver: Receiver) -> Receiver:
    """A destination whose last answers were good and quick."""
    deliver_all(*streams_to(receiver.url, 1, START, START, EXIT))
    receiver.requests.clear()
    return receiver


def claim(stream: Stream) -> Delivery:
    (delivery,) = stream.deliverer.claim([stream.pk]).deliveries
    return delivery


def send_run(stream: Stream) -> Result:
    """Send the first run of a stream and record it; send nothing more."""
    result = stream.deliverer.send(claim(stream))
    for delivery in stream.deliverer.record([result]).deliveries:
        stream.deliverer.abandon(delivery)
    return result


def numbers(receiver: Receiver) -> list[int]:
    return [received.json["jobsequence"] for received in receiver.requests]


# -- accepted events -------------------------------------------------------------------------------


def test_a_backlog_is_sent_in_runs(fast: Receiver) -> None:
    # Given more events of a stream than one run has
    (stream,) = streams_to(fast.url, 1, *[LOG] * 2 * MAX_RUN)

    # When they are delivered
    with CaptureQueriesContext(connection) as queries:
        stream.deliver()

    # I expect them in order, one at a time, each with its attempt
    assert numbers(fast) == list(range(1, 2 * MAX_RUN + 1))
    assert fast.max_at_once == 1
    assert set(stream.states) == {DELIVERED}
    assert [[attempt.status for attempt in event.attempts.all()] for event in stream.events] == [[200]] * 2 * MAX_RUN

    # by 19 statements for 16 events: alone they would take 103
    statements = [query["sql"] for query in queries if query["sql"].split()[0] not in ("BEGIN", "COMMIT")]
    assert len(statements) == CLAIM_AND_TWO_RECORDS, statements


def test_runs_have_few_bytes(fast: Receiver) -> None:
    (stream,) = streams_to(fast.url, 1, *[LOG] * 20)
    assert len(claim(stream).events) == MAX_RUN
    assert MAX_RUN * cloudevents.MAX_BYTES <= 512 * 1024


def test_the_window_of_a_destination_grows_with_each_answer(fast: Receiver) -> None:
    Destination.objects.update(window=2)
    (stream,) = streams_to(fast.url, 1, START, EXIT)
    stream.deliver()
    assert Destination.objects.get().window == 8


@pytest.mark.parametrize("state", ["new", "slow", "half open"])
def test_one_event_is_sent_to_a_destination_that_is_not_fast(fast: Receiver, state: str) -> None:
    (stream,) = streams_to(fast.url, 1, START, EXIT)
    changes: dict[str, dict[str, Any]] = {
        "new": {"window": 1},
        "slow": {"slowness": 1},
        "half open": {"window": 1, "failures": 5, "open_until": Now()},
    }
    Destination.objects.update(**changes[state])
    assert len(claim(stream).events) == 1


# -- the end of a run ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Answer(404), PENDING),
        (Answer(429), PENDING),
        (Answer(500), PENDING),
        (Answer(410), DEAD),
        (Answer(fault="reset"), PENDING),
        (Answer(fault="hang"), PENDING),
    ],
)
def test_a_run_ends_with_an_event_that_is_not_accepted(fast: Receiver, answer: Answer, state: str) -> None:
    # Given a run whose third event is not accepted
    (stream,) = streams_to(fast.url, 1, *[LOG] * 5)
    stream.deliverer = Deliverer(replace(PATIENT, answer=IMPATIENT.answer)) if answer.fault == "hang" else stream.deliverer
    fast.respond = lambda received: answer if received.json["jobsequence"] == 3 else Answer()

    # When it is sent
    send_run(stream)

    # I expect nothing after that event to be sent, and the rest to be as it was
    assert numbers(fast) == [1, 2, 3]
    assert stream.states == [DELIVERED, DELIVERED, state, PENDING, PENDING]
    assert [event.attempts.count() for event in stream.events] == [1, 1, 1, 0, 0]
    assert {(event.tries, event.silences, event.next_attempt_at) for event in stream.events[3:]} == {(0, 0, None)}

    # and the destination to be judged by its last answer
    destination = Destination.objects.get()
    is_failure = answer.fault is not None or answer.status == 500
    assert (destination.failures, destination.window) == (int(is_failure), 1 if is_failure or answer.status == 429 else 8)


def test_a_run_ends_after_a_while(fast: Receiver) -> None:
    (stream,) = streams_to(fast.url, 1, *[LOG] * 3, deliverer=Deliverer(replace(PATIENT, run=0.0)))
    send_run(stream)
    assert stream.states == [DELIVERED, PENDING, PENDING]


def test_no_run_outlasts_its_lease(fast: Receiver) -> None:
    (stream,) = streams_to(fast.url, 1, *[LOG] * 3)
    result = stream.deliverer.send(replace(claim(stream), send_by=time.monotonic()))
    assert len(result.attempts) == 1


def test_a_run_ends_if_its_destination_has_become_slow(fast: Receiver) -> None:
    # Given a destination that is found slow by another delivery of the process during a run
    threads = ThreadLimiter(PATIENT)
    (stream,) = streams_to(fast.url, 1, *[LOG] * 3, deliverer=Deliverer(PATIENT, threads=threads))

    def respond(_: Received) -> Answer:
        threads._attempts[uuid.uuid4()] = (stream.row.destination_id, time.monotonic() - 10)
        return Answer()

    fast.respond = respond
    send_run(stream)
    assert stream.states == [DELIVERED, PENDING, PENDING]


def test_a_stop_ends_a_run(fast: Receiver) -> None:
    # Given a process that is stopped while the second event of a run is under way
    (stream,) = streams_to(fast.url, 1, *[LOG] * 4)

    def respond(received: Received) -> Answer:
        if received.json["jobsequence"] == 2:
            stream.deliverer.stop()
        return Answer()

    fast.respond = respond

    # When the run has ended, I expect both results to be recorded, and the stream to be due for another process
    stream.deliver()
    assert stream.states == [DELIVERED, DELIVERED, PENDING, PENDING]
    assert due_streams.due(10) == [stream.pk]


def test_a_pause_takes_effect_after_a_run(fast: Receiver) -> None:
    # Given an operator who pauses a destination during a run
    (stream,) = streams_to(fast.url, 1, *[LOG] * (MAX_RUN + 2))

    def respond(received: Received) -> Answer:
        if received.json["jobsequence"] == 2:
            destinations.pause(stream.row.destination_id)
        return Answer()

    fast.respond = respond

    # I expect nothing to be sent after it
    stream.deliver()
    assert numbers(fast) == list(range(1, MAX_RUN + 1))
    assert parked() == 1


def test_a_run_leaves_no_trace_of_a_stream_that_is_deleted_meanwhile(fast: Receiver) -> None:
    def respond(_: Received) -> Answer:
        in_threads(1, lambda _: outbox.forget([stream.uuid]))
        return Answer()

    (stream,) = streams_to(fast.url, 1, *[LOG] * (MAX_RUN + 2))
    fast.respond = respond
    stream.deliver()
    assert numbers(fast) == list(range(1, MAX_RUN + 1))
    assert not Event.objects.filter(subscription=stream.pk).exists()


def test_an_event_that_cannot_be_sent_ends_the_run_before_it(fast: Receiver) -> None:
    # Given an error of ours with the third event
    def fail_with_the_third(url: str, headers: Any, *arguments: Any) -> Outcome:
        if headers["Ce-Id"] == str(stream.events[2].pk):
            raise ZeroDivisionError
        return delivery_attempt.send(url, headers, *arguments)

    (stream,) = streams_to(fast.url, 1, *[LOG] * 4, deliverer=Deliverer(PATIENT, send=fail_with_the_third))

    # When the run is sent, I expect the events before it to be recorded, and the error to be reported for that one alone
    with pytest.raises(ZeroDivisionError):
        stream.deliver()
    assert numbers(fast) == [1, 2]
    assert stream.states == [DELIVERED, DELIVERED, PENDING, PENDING]


# -- what is in a run ------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"next_attempt_at": timedelta(hours=1)}, {"expires_at": timedelta(0)}])
def test_an_event_that_is_due_later_or_expired_is_in_no_run(fast: Receiver, change: dict[str, timedelta]) -> None:
    (stream,) = streams_to(fast.url, 1, *[LOG] * 3)
    Event.objects.filter(pk=stream.events[1].pk).update(**{name: Now() + by for name, by in change.items()})
    assert [event.sequence for event in claim(stream).events] == [1]


def test_a_run_has_no_gaps(fast: Receiver) -> None:
    # Given dead events with others between them
    fast.respond = lambda received: Answer(410 if received.json["jobsequence"] in (1, 3, 4) else 200)
    (stream,) = streams_to(fast.url, 1, *[LOG] * 4)
    stream.deliver()
    assert stream.states == [DEAD, DELIVERED, DEAD, DEAD]

    # When they are redelivered, I expect a run to end where one is missing
    redelivery.redeliver_dead(stream.uuid)
    assert [event.sequence for event in claim(stream).events] == [1]


# -- crashes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("place", range(1, 5))
def test_a_run_of_a_killed_process_is_repeated(fast: Receiver, place: int, moment: str) -> None:
    # Given a process that is killed before or after it sends one of the events of a run
    sent: list[str] = []

    def send_or_die(url: str, headers: Any, *arguments: Any) -> Outcome:
        sent.append(headers["Ce-Id"])
        if len(sent) < place or moment == "after":
            outcome = delivery_attempt.send(url, headers, *arguments)
        if len(sent) == place:
            raise SystemExit
        return outcome

    (stream,) = streams_to(fast.url, 1, START, LOG, LOG, EXIT, deliverer=Deliverer(PATIENT, send=send_or_die))
    with pytest.raises(SystemExit):
        stream.deliver()
    assert not Attempt.objects.filter(event__subscription=stream.pk).exists()
    before = list(fast.requests)

    # When its lease has expired, I expect another process to start with the first event, alone
    stream.expire_lease()
    stream.deliverer = Deliverer(PATIENT)
    delivery = claim(stream)
    assert [event.sequence for event in delivery.events] == [1]
    stream.deliverer.abandon(delivery)
    stream.expire_lease()

    # and all events to be sent in order, those of the run again, with the same ids and bytes
    stream.deliver()
    assert numbers(fast)[len(before) :] == [1, 2, 3, 4]
    assert len({(received.headers["webhook-id"], received.body) for received in fast.requests}) == 4
    assert stream.states == [DELIVERED] * 4

    # and only the first to have interrupted attempts: of the others nothing is known
    interrupted = Attempt.objects.filter(event__subscription=stream.pk, error__startswith="interrupted")
    assert [attempt.event_id for attempt in interrupted] == [stream.events[0].pk] * 2
