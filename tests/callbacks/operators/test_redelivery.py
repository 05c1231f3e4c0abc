"""Redelivered events are sent again: the same bytes, in their order, with as many tries and as much time as new ones."""

import uuid
from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from callbacks.delivery import due_streams
from callbacks.models import Destination, Event
from callbacks.operators import destinations, redelivery
from tests.helpers.delivery_fixtures import (
    DEAD,
    DELIVERED,
    EXIT,
    KEY,
    LOG,
    PENDING,
    START,
    Gate,
    Stream,
    deliver_all,
    delivering,
    relay_and_deliver,
    sent,
    streams_to,
    time_passes,
)
from tests.helpers.receiver import Answer, Receiver

pytestmark = pytest.mark.django_db(transaction=True)

HOUR, DAY = 3600.0, 86400.0


@pytest.fixture
def stream(receiver: Receiver) -> Stream:
    return Stream(receiver.url)


def die(stream: Stream, receiver: Receiver, *types: str) -> None:
    """Publish events that the destination refuses for good."""
    receiver.will(*[Answer(410)] * len(types))
    stream.publish(*types)
    stream.deliver()
    assert set(stream.states) <= {DEAD, DELIVERED}


def ago(seconds: float) -> datetime:
    """Return the time that many seconds before now."""
    return timezone.now() - timedelta(seconds=seconds)


def sequence(receiver: Receiver) -> list[int]:
    """Return the sequence numbers of the events as they arrived."""
    return [number for _, number in sent(receiver)]


# -- one event -----------------------------------------------------------------------------------------


def test_a_delivered_event_is_redelivered_unchanged(stream: Stream, receiver: Receiver) -> None:
    # Given delivered events
    stream.publish(START, EXIT)
    stream.deliver()

    # When one of them is redelivered
    event = stream.events[0]
    assert redelivery.redeliver(stream.uuid, event.pk)
    assert due_streams.due(10) == [stream.pk]
    stream.deliver()

    # I expect the same id and bytes, with a new signature, and nothing else
    assert sequence(receiver) == [1, 2, 1]
    first, _, again = receiver.requests
    assert first.body == again.body
    assert first.headers["webhook-id"] == again.headers["webhook-id"] == str(event.pk)
    again.verify(KEY)
    assert stream.states == [DELIVERED, DELIVERED]
    assert [attempt.status for attempt in stream.events[0].attempts.order_by("pk")] == [200, 200]


def test_a_redelivered_event_gets_all_tries_and_a_day(stream: Stream, receiver: Receiver) -> None:
    # Given a log event that died days ago
    receiver.respond = lambda _: Answer(413)
    stream.publish(LOG)
    stream.deliver()
    stream.retry_now(4)
    assert stream.states == [DEAD]
    time_passes(72 * HOUR)

    # When it is redelivered and still refused, I expect five tries, as for a new one
    assert redelivery.redeliver(stream.uuid, stream.events[0].pk)
    assert abs((stream.events[0].expires_at - timezone.now()).total_seconds() - DAY) < HOUR
    stream.deliver()
    assert (stream.states, stream.events[0].tries) == ([PENDING], 1)
    stream.retry_now(4)
    assert (stream.states, stream.events[0].tries) == ([DEAD], 5)
    assert stream.events[0].attempts.count() == 10


def test_a_redelivered_pending_event_is_tried_now(stream: Stream, receiver: Receiver) -> None:
    # Given an event that is due in an hour
    receiver.will(Answer(503, {"Retry-After": "3600"}))
    stream.publish(START, EXIT)
    stream.deliver()

    # When it is redelivered, I expect it to be sent at once, and its tries not to be reset
    assert redelivery.redeliver(stream.uuid, stream.events[0].pk)
    stream.deliver()
    assert sequence(receiver) == [1, 1, 2]
    assert stream.events[0].tries == 2


def test_an_event_that_does_not_exist_is_not_redelivered(stream: Stream, receiver: Receiver) -> None:
    stream.publish()
    stream.deliver()
    other = Stream(receiver.url, subject="job-2")
    assert not redelivery.redeliver(uuid.uuid4(), stream.events[0].pk)
    assert not redelivery.redeliver(stream.uuid, uuid.uuid4())
    assert not redelivery.redeliver(other.uuid, stream.events[0].pk)
    assert redelivery.redeliver_dead(uuid.uuid4()) == redelivery.redeliver_dead(stream.uuid) == 0
    redelivery.request_redelivery(2**40, timezone.now())
    assert due_streams.due(10) == []


# -- the order ------------------------------------------------------------------------------------------


def test_a_redelivered_event_goes_before_later_due_ones(stream: Stream, receiver: Receiver) -> None:
    die(stream, receiver, START)
    stream.publish(LOG, EXIT)
    redelivery.redeliver(stream.uuid, stream.events[0].pk)
    stream.deliver()
    assert sequence(receiver) == [1, 1, 2, 3]


def test_a_redelivered_event_goes_before_a_later_retry(stream: Stream, receiver: Receiver) -> None:
    # Given a second event whose retry is due in an hour
    die(stream, receiver, START)
    receiver.will(Answer(503, {"Retry-After": "3600"}))
    stream.publish(EXIT)
    stream.deliver()

    # When the first is redelivered, I expect it to be sent now, and the second when it is due
    redelivery.redeliver(stream.uuid, stream.events[0].pk)
    stream.deliver()
    assert sequence(receiver) == [1, 2, 1]
    assert 3000 < stream.due_in <= 3600
    time_passes(HOUR)
    stream.deliver()
    assert sequence(receiver) == [1, 2, 1, 2]


def test_a_redelivered_event_follows_one_in_flight(stream: Stream, receiver: Receiver) -> None:
    # Given a run of two more events in flight
    die(stream, receiver, START)
    gate = Gate(receiver)
    stream.publish(LOG, EXIT)
    with delivering(stream):
        gate.wait_for(1)

        # When the first is redelivered, I expect it not to be sent at the same time
        redelivery.redeliver(stream.uuid, stream.events[0].pk)
        stream.deliver()
        gate.open()

    # but after the run, by the same delivery
    assert sequence(receiver) == [1, 2, 3, 1]
    assert gate.max_inside == 1


def test_an_event_redelivered_while_in_flight_is_not_repeated(stream: Stream, receiver: Receiver) -> None:
    gate = Gate(receiver)
    stream.publish(START, EXIT)
    with delivering(stream):
        gate.wait_for(1)
        redelivery.redeliver(stream.uuid, stream.events[0].pk)
        gate.open()
    assert sequence(receiver) == [1, 2]


def test_a_parked_stream_keeps_its_place_in_the_queue(receiver: Receiver) -> None:
    # Given streams that are parked for a paused host, and a dead event of the first of them
    streams = [Stream(receiver.url, subject=f"job-{number}") for number in range(3)]
    die(streams[0], receiver, START)
    destination = streams[0].row.destination_id
    destinations.pause(destination)
    for stream in streams:
        stream.publish(LOG)
        stream.deliver()
    places = [stream.row.waiting_since for stream in streams]
    receiver.requests.clear()

    # When it is redelivered, I expect the stream to stay parked
    assert redelivery.redeliver_dead(streams[0].uuid) == 1
    assert due_streams.due(10) == []
    streams[0].deliver()
    assert [stream.row.waiting_since for stream in streams] == places

    # and to be the first once the host is resumed, with the earlier event first
    destinations.resume(destination)
    deliver_all(*streams)
    assert sent(receiver)[:2] == [("job-0", 1), ("job-0", 2)]


# -- all of a stream -----------------------------------------------------------------------------------


def test_all_dead_events_of_a_stream_are_redelivered_in_order(stream: Stream, receiver: Receiver) -> None:
    # Given dead events between others, logs among them
    die(stream, receiver, START)
    stream.publish(LOG)
    stream.deliver()
    die(stream, receiver, LOG, LOG, EXIT)
    receiver.requests.clear()

    # When all are redelivered
    assert redelivery.redeliver_dead(stream.uuid) == 4
    receiver.will(Answer(200), Answer(413))
    stream.deliver()

    # I expect these and no others, and more than one try for a log event although one died before
    assert sequence(receiver) == [1, 3]
    assert stream.states == [DELIVERED, DELIVERED, PENDING, PENDING, PENDING]
    stream.retry_now()
    assert sequence(receiver) == [1, 3, 3, 4, 5]
    assert redelivery.redeliver_dead(stream.uuid) == 0


def test_only_events_that_died_in_a_period_are_redelivered(stream: Stream, receiver: Receiver) -> None:
    # Given events that died three hours, two hours and one hour ago
    for _ in range(3):
        die(stream, receiver, START)
        time_passes(HOUR)

    assert redelivery.redeliver_dead(stream.uuid, since=ago(0.5 * HOUR)) == 0
    assert redelivery.redeliver_dead(stream.uuid, until=ago(3.5 * HOUR)) == 0
    assert redelivery.redeliver_dead(stream.uuid, since=ago(2.5 * HOUR), until=ago(1.5 * HOUR)) == 1
    assert stream.states == [DEAD, PENDING, DEAD]
    assert redelivery.redeliver_dead(stream.uuid, since=ago(1.5 * HOUR)) == 1
    assert redelivery.redeliver_dead(stream.uuid, until=ago(2.5 * HOUR)) == 1


# -- all of a host -------------------------------------------------------------------------------------


def finish_requests() -> None:
    """Do all requested redeliveries, batch by batch, as the relay does."""
    rounds = 0
    while Destination.objects.filter(revive_until__isnull=False).exists():
        redelivery.process_requests()
        rounds += 1
        assert rounds < 20, "the requests are never done"


def test_dead_events_of_a_host_are_redelivered_in_batches(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given streams with dead events, some of them old, and one to another host
    monkeypatch.setattr(redelivery, "_STREAMS_BATCH", 2)
    old = Stream(receiver.url, subject="old")
    with Receiver() as elsewhere:
        other = Stream(elsewhere.url)
        die(other, elsewhere, START)
        die(old, receiver, EXIT)
        time_passes(2 * HOUR)
        streams = [Stream(receiver.url, subject=f"young-{number}") for number in range(5)]
        for stream in streams:
            die(stream, receiver, START, EXIT)
        receiver.requests.clear()

        # When those of the last hour are requested, and the relay dies after one batch
        destination = old.row.destination_id
        redelivery.request_redelivery(destination, ago(HOUR))
        redelivery.process_requests()
        assert sum(PENDING in stream.states for stream in streams) == 2

        # I expect the next relay to continue
        finish_requests()
        deliver_all(*streams)
        assert len(receiver.requests) == 10
        receiver.check_order()
        assert (old.states, other.states) == ([DEAD], [DEAD])

        # and the older ones once these are requested, too
        redelivery.request_redelivery(destination, ago(3 * HOUR))
        finish_requests()
        deliver_all(old)
        assert len(receiver.requests) == 11


def test_a_second_request_widens_the_first(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given events that died two hours and one hour ago, and a request for the later one
    monkeypatch.setattr(redelivery, "_STREAMS_BATCH", 1)
    streams = streams_to(receiver.url, 2)
    destination = streams[0].row.destination_id
    for stream in streams:
        receiver.will(Answer(410))
        stream.deliver()
        time_passes(HOUR)
    redelivery.request_redelivery(destination, ago(1.5 * HOUR))

    # When a second one asks for less and a third for more
    redelivery.request_redelivery(destination, ago(0.5 * HOUR))
    redelivery.request_redelivery(destination, ago(2.5 * HOUR))

    # I expect both to be redelivered
    finish_requests()
    deliver_all(*streams)


def test_an_event_that_dies_again_is_redelivered_once(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given dead events, and a host that still refuses everything
    monkeypatch.setattr(redelivery, "_STREAMS_BATCH", 1)
    streams = streams_to(receiver.url, 3)
    receiver.respond = lambda _: Answer(410)
    relay_and_deliver()
    relay_and_deliver()
    time_passes(1)
    requests_before = len(receiver.requests)

    # When they are redelivered, and some die again before the others are sent
    redelivery.request_redelivery(streams[0].row.destination_id, ago(HOUR))
    time_passes(1)
    while Destination.objects.filter(revive_until__isnull=False).exists():
        redelivery.process_requests()
        relay_and_deliver()
        assert len(receiver.requests) <= requests_before + 3, "an event was sent twice"

    # I expect one try for each
    assert len(receiver.requests) == requests_before + 3
    assert not Event.objects.exclude(state=DEAD).exists()
