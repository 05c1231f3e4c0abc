"""What is asked for again is sent again: the same event, in its place among the others, with the chances of a new one."""

import uuid
from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from callbacks.delivery import destination_queue, due_streams
from callbacks.models import Destination, Event
from callbacks.operators import redelivery
from callbacks.rules.event_verdict import LIFETIME_SECONDS
from tests.helpers.delivery_fixtures import (
    DEAD,
    DELIVERED,
    EXIT,
    LOG,
    PENDING,
    START,
    Gate,
    Stream,
    sent,
    streams_to,
    time_passes,
    under_way,
    work,
    work_until_delivered,
)
from tests.helpers.receiver import Answer, Receiver

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("empty_queue", "patient")]

HOUR = 3600.0


@pytest.fixture
def stream(receiver: Receiver) -> Stream:
    return Stream(receiver.url)


def die(stream: Stream, receiver: Receiver, *types: str) -> None:
    """Have it publish these, which its destination refuses for ever."""
    receiver.will(*[Answer(410)] * len(types))
    stream.publish(*types)
    stream.drain()
    assert set(stream.states) <= {DEAD, DELIVERED}


def ago(seconds: float) -> datetime:
    return timezone.now() - timedelta(seconds=seconds)


def sequence(receiver: Receiver) -> list[int]:
    return [number for _, number in sent(receiver)]


# -- one event -----------------------------------------------------------------------------------------


def test_a_delivered_event_is_sent_again_as_it_was(stream: Stream, receiver: Receiver) -> None:
    # Given what has arrived
    stream.publish(START, EXIT)
    stream.drain()

    # When one of them is asked for again
    event = stream.events[0]
    assert redelivery.redeliver(stream.uuid, event.pk)
    assert due_streams.due(10) == [stream.pk]
    stream.drain()

    # I expect the same id and bytes, with a signature of its own, and nothing else
    assert sequence(receiver) == [1, 2, 1]
    first, _, again = receiver.requests
    assert first.body == again.body
    assert first.headers["webhook-id"] == again.headers["webhook-id"] == str(event.pk)
    again.verify("the key")
    assert stream.states == [DELIVERED, DELIVERED]
    assert [attempt.status for attempt in stream.events[0].attempts.order_by("pk")] == [200, 200]


def test_a_dead_event_gets_all_its_tries_and_a_day(stream: Stream, receiver: Receiver) -> None:
    # Given a log event that has had its tries, days ago
    receiver.respond = lambda _: Answer(413)
    stream.publish(LOG)
    stream.drain()
    stream.try_now(4)
    assert stream.states == [DEAD]
    time_passes(72 * HOUR)

    # When it is asked for again and still refused, I expect five tries as of a new one
    assert redelivery.redeliver(stream.uuid, stream.events[0].pk)
    assert abs((stream.events[0].expires_at - timezone.now()).total_seconds() - LIFETIME_SECONDS) < HOUR
    stream.drain()
    assert (stream.states, stream.events[0].tries) == ([PENDING], 1)
    stream.try_now(4)
    assert (stream.states, stream.events[0].tries) == ([DEAD], 5)
    assert stream.events[0].attempts.count() == 10


def test_a_pending_event_is_tried_now(stream: Stream, receiver: Receiver) -> None:
    # Given one that is to be tried in an hour
    receiver.will(Answer(503, {"Retry-After": "3600"}))
    stream.publish(START, EXIT)
    stream.drain()

    # When it is asked for, I expect no wait, and its tries to be counted on
    assert redelivery.redeliver(stream.uuid, stream.events[0].pk)
    stream.drain()
    assert sequence(receiver) == [1, 1, 2]
    assert stream.events[0].tries == 2


def test_what_does_not_exist_is_not_sent(stream: Stream, receiver: Receiver) -> None:
    stream.publish()
    stream.drain()
    other = Stream(receiver.url, subject="job-2")
    assert not redelivery.redeliver(uuid.uuid4(), stream.events[0].pk)
    assert not redelivery.redeliver(stream.uuid, uuid.uuid4())
    assert not redelivery.redeliver(other.uuid, stream.events[0].pk)
    assert redelivery.redeliver_dead(uuid.uuid4()) == redelivery.redeliver_dead(stream.uuid) == 0
    redelivery.redeliver_dead_of(2**40, timezone.now())
    assert due_streams.due(10) == []


# -- among others --------------------------------------------------------------------------------------


def test_it_goes_before_later_ones_that_are_due(stream: Stream, receiver: Receiver) -> None:
    die(stream, receiver, START)
    stream.publish(LOG, EXIT)
    redelivery.redeliver(stream.uuid, stream.events[0].pk)
    stream.drain()
    assert sequence(receiver) == [1, 1, 2, 3]


def test_it_goes_before_a_later_one_that_waits_for_its_next_try(stream: Stream, receiver: Receiver) -> None:
    # Given a second event that waits
    die(stream, receiver, START)
    receiver.will(Answer(503, {"Retry-After": "3600"}))
    stream.publish(EXIT)
    stream.drain()

    # When the first is asked for again, I expect it to be sent now, and the second one in its time
    redelivery.redeliver(stream.uuid, stream.events[0].pk)
    stream.drain()
    assert sequence(receiver) == [1, 2, 1]
    assert 3000 < stream.waits <= 3600
    time_passes(HOUR)
    stream.drain()
    assert sequence(receiver) == [1, 2, 1, 2]


def test_it_goes_next_while_a_later_one_is_under_way(stream: Stream, receiver: Receiver) -> None:
    # Given a second event under way
    die(stream, receiver, START)
    gate = Gate(receiver)
    stream.publish(LOG, EXIT)
    with under_way(stream):
        gate.wait_for(1)

        # When the first is asked for again, I expect nobody to send it at the same time
        redelivery.redeliver(stream.uuid, stream.events[0].pk)
        stream.drain()
        gate.open()

    # and the same delivery to go on with it
    assert sequence(receiver) == [1, 2, 1, 3]
    assert gate.most == 1


def test_what_is_under_way_itself_is_not_sent_twice_where_it_arrives(stream: Stream, receiver: Receiver) -> None:
    gate = Gate(receiver)
    stream.publish(START, EXIT)
    with under_way(stream):
        gate.wait_for(1)
        redelivery.redeliver(stream.uuid, stream.events[0].pk)
        gate.open()
    assert sequence(receiver) == [1, 2]


def test_a_stream_that_waits_keeps_its_place(receiver: Receiver) -> None:
    # Given streams that wait for a host that is paused, and a dead event of the first of them
    streams = [Stream(receiver.url, subject=f"job-{number}") for number in range(3)]
    die(streams[0], receiver, START)
    destination = streams[0].row.destination_id
    destination_queue.pause(destination)
    for stream in streams:
        stream.publish(LOG)
        stream.drain()
    places = [stream.row.waiting_since for stream in streams]
    receiver.requests.clear()

    # When it is asked for, I expect the stream to wait as before
    assert redelivery.redeliver_dead(streams[0].uuid) == 1
    assert due_streams.due(10) == []
    streams[0].drain()
    assert [stream.row.waiting_since for stream in streams] == places

    # and to be the first, with the earlier event first
    destination_queue.resume(destination)
    work_until_delivered(*streams)
    assert sent(receiver)[:2] == [("job-0", 1), ("job-0", 2)]


# -- all of a stream -----------------------------------------------------------------------------------


def test_all_dead_of_a_stream_are_sent_again_in_order(stream: Stream, receiver: Receiver) -> None:
    # Given dead events between others, logs among them
    die(stream, receiver, START)
    stream.publish(LOG)
    stream.drain()
    die(stream, receiver, LOG, LOG, EXIT)
    receiver.requests.clear()

    # When all are asked for again
    assert redelivery.redeliver_dead(stream.uuid) == 4
    receiver.will(Answer(200), Answer(413))
    stream.drain()

    # I expect these and no others, and a log to have more than one try although one died before
    assert sequence(receiver) == [1, 3]
    assert stream.states == [DELIVERED, DELIVERED, PENDING, PENDING, PENDING]
    stream.try_now()
    assert sequence(receiver) == [1, 3, 3, 4, 5]
    assert redelivery.redeliver_dead(stream.uuid) == 0


def test_only_what_died_between_two_moments_is_sent_again(stream: Stream, receiver: Receiver) -> None:
    # Given one that died three hours ago, one two, and one an hour ago
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


def work_off() -> None:
    """All that was asked for, as the relay does: a batch after the other."""
    rounds = 0
    while Destination.objects.filter(revive_until__isnull=False).exists():
        redelivery.work_off()
        rounds += 1
        assert rounds < 20, "it does not end"


def test_all_dead_of_a_host_are_sent_again_in_batches(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given streams to a host with dead events, some of them old, and another host
    monkeypatch.setattr(redelivery, "_STREAMS", 2)
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

        # When those of the last hour are asked for, and the relay dies when it has done some
        destination = old.row.destination_id
        redelivery.redeliver_dead_of(destination, ago(HOUR))
        redelivery.work_off()
        assert sum(PENDING in stream.states for stream in streams) == 2

        # I expect the next one to go on with it to the end
        work_off()
        work_until_delivered(*streams)
        assert len(receiver.requests) == 10
        receiver.check_order()
        assert (old.states, other.states) == ([DEAD], [DEAD])

        # and the older ones when these are asked for, too
        redelivery.redeliver_dead_of(destination, ago(3 * HOUR))
        work_off()
        work_until_delivered(old)
        assert len(receiver.requests) == 11


def test_a_second_request_widens_the_first(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given one dead event of three hours ago, one of an hour ago, and a request that has only begun
    monkeypatch.setattr(redelivery, "_STREAMS", 1)
    streams = streams_to(receiver.url, 2)
    destination = streams[0].row.destination_id
    for stream in streams:
        receiver.will(Answer(410))
        stream.drain()
        time_passes(HOUR)
    redelivery.redeliver_dead_of(destination, ago(1.5 * HOUR))

    # When another one asks for less and another for more
    redelivery.redeliver_dead_of(destination, ago(0.5 * HOUR))
    redelivery.redeliver_dead_of(destination, ago(2.5 * HOUR))

    # I expect all of it
    work_off()
    work_until_delivered(*streams)


def test_what_dies_again_is_not_sent_for_ever(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a host that still refuses everything
    monkeypatch.setattr(redelivery, "_STREAMS", 1)
    streams = streams_to(receiver.url, 3)
    receiver.respond = lambda _: Answer(410)
    work()
    work()
    time_passes(1)
    sent_before = len(receiver.requests)

    # When its dead are asked for, and die again while there are others
    redelivery.redeliver_dead_of(streams[0].row.destination_id, ago(HOUR))
    time_passes(1)
    while Destination.objects.filter(revive_until__isnull=False).exists():
        redelivery.work_off()
        work()
        assert len(receiver.requests) <= sent_before + 3, "one was sent twice"

    # I expect one try for each
    assert len(receiver.requests) == sent_before + 3
    assert not Event.objects.exclude(state=DEAD).exists()
