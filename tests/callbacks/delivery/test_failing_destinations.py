"""A host or a process is in trouble: nobody else is, and nothing is lost."""

import socket
import threading
from datetime import timedelta

import pytest
from django.db.models import F

from callbacks.delivery import destination_queue, due_streams, stream_delivery, thread_limiter
from callbacks.delivery.thread_limiter import Places
from callbacks.models import Attempt, Event, Subscription
from callbacks.rules import destination_breaker
from tests.helpers.delivery_fixtures import (
    DEAD,
    DELIVERED,
    EXIT,
    LOG,
    PENDING,
    START,
    Gate,
    Stream,
    attempts,
    in_threads,
    sent,
    streams_to,
    time_passes,
    under_way,
    waiting,
    work,
    work_until_delivered,
)
from tests.helpers.receiver import Answer, Received, Receiver
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("empty_queue", "patient")]


def open_breaker(receiver: Receiver) -> None:
    """Have it opened by a stream of its own; half a minute is ahead."""
    receiver.will(*[Answer(500)] * 5)
    (stream,) = streams_to(receiver.url, 1)
    stream.try_now(5)
    assert len(receiver.requests) == 5
    receiver.requests.clear()
    Subscription.objects.filter(pk=stream.pk).delete()


# -- a host that is away ---------------------------------------------------------------------------


def test_a_dead_host_costs_nobody_anything_and_gets_everything_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given pauses that do not pass by themselves, and many streams for a port where nobody listens
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(destination_breaker, "OPEN_SECONDS", 3600.0)
    monkeypatch.setattr(destination_breaker, "LONGEST_SECONDS", 4 * 3600.0)
    streams = streams_to(f"http://127.0.0.1:{port}/", 200)
    for stream in streams[:20]:
        stream.publish(EXIT)
    work()
    time_passes(2)
    work()

    # When its breaker has opened, I expect them all to wait, due for nobody, and nothing to be tried any more
    assert (waiting(), due_streams.due(1000)) == (200, [])
    assert Attempt.objects.count() == 5
    work()
    assert Attempt.objects.count() == 5
    assert not Event.objects.exclude(tries=0, state=PENDING).exists()

    # and one probe whenever its time has come
    for number, hours in enumerate((1, 2, 4, 4), start=6):
        time_passes((hours - 0.5) * 3600)
        work()
        assert Attempt.objects.count() == number - 1
        time_passes(0.5 * 3600)
        work()
        work()
        assert Attempt.objects.count() == number
    assert not Event.objects.exclude(tries=0, state=PENDING).exists()

    # and what gets too old to die all the same
    streams[0].age(timedelta(days=1))
    Subscription.objects.filter(pk=streams[0].pk).update(next_attempt_at=F("next_attempt_at") - timedelta(days=1))
    work()
    assert (streams[0].states, streams[0].row.waiting_since) == ([DEAD, DEAD], None)

    # and when it is back, all else to arrive, in order, without a try lost
    time_passes(4 * 3600)
    with Receiver(port=port) as receiver:
        work_until_delivered(*streams[1:])
        receiver.check_order()
        assert len(receiver.requests) == 199 + 19
    assert not Event.objects.filter(state=DELIVERED).exclude(tries=1).exists()


def test_one_probe_however_many_deliver(receiver: Receiver) -> None:
    # Given a breaker that is half open, with many streams
    open_breaker(receiver)
    streams = streams_to(receiver.url, 12)
    time_passes(30)
    gate = Gate(receiver)

    # When many try at once, I expect one request, while it lasts
    def deliver(number: int) -> None:
        destination_queue.wake_available()
        for stream in streams[number:] + streams[:number]:
            stream.drain()

    crowd = threading.Thread(target=in_threads, args=(12, deliver))
    crowd.start()
    wait_for(lambda: gate.inside == 1 and waiting() == 11, what="a probe, and the others to wait")
    assert due_streams.due(100) == []
    gate.open()
    crowd.join()

    # and all the others when it has been answered
    work_until_delivered(*streams)
    assert len(receiver.requests) == 12


def test_a_killed_probe_is_replaced(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a probe whose process dies
    open_breaker(receiver)
    streams = streams_to(receiver.url, 3)
    time_passes(30)

    def die(*_: object, **__: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(stream_delivery, "_record", die)
        with pytest.raises(SystemExit):
            streams[1].drain()
    assert len(receiver.requests) == 1

    # When nobody can know yet, I expect nothing to be sent
    work()
    assert len(receiver.requests) == 1

    # and then everything, and the lost attempt accounted for
    time_passes(destination_breaker.LEASE_SECONDS)
    work_until_delivered(*streams)
    receiver.check_order()
    assert attempts(streams[1].events[0])[0] == (None, "")
    assert streams[1].events[0].tries == 1


def test_a_host_that_hangs_leaves_threads_for_others(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a process with two threads for the unproven, a host that has proven itself, and four that hang
    monkeypatch.setattr(thread_limiter, "places", Places(untrusted=2, slow=1))
    work_until_delivered(*streams_to(receiver.url, 2))
    with Receiver("0.0.0.0") as hanging:
        gate = Gate(hanging)
        stuck = [Stream(f"http://127.0.0.{number}:{hanging.port}/") for number in (1, 2, 3, 4)]
        for stream in stuck:
            stream.publish()

        # When all are delivered, I expect two of the four to be tried
        with under_way(*stuck) as deliverers:
            wait_for(lambda: sum(thread.is_alive() for thread in deliverers) == 2 and gate.inside == 2)

            # and the other host to get what is for it meanwhile
            well = streams_to(receiver.url, 3, START, EXIT)
            work_until_delivered(*well)
            gate.open()

        # and the two others after a while
        time_passes(6)
        work_until_delivered(*stuck)
        assert gate.most == 2


def test_a_host_that_proves_itself_leaves_its_thread_to_the_unproven(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a process with one thread for the unproven, and a host that has answered well once
    monkeypatch.setattr(thread_limiter, "places", Places(untrusted=1, slow=1))
    with Receiver() as other:
        (stream,) = streams_to(other.url, 1)

        def respond(received: Received) -> Answer:
            if received.json["jobsequence"] == 2:
                in_threads(1, lambda _: stream.drain())
            return Answer()

        # When it takes a second event, I expect another new host to be tried meanwhile
        receiver.respond = respond
        streams_to(receiver.url, 1, START, EXIT)[0].drain()
        assert len(other.requests) == 1


# -- a host that asks to slow down -----------------------------------------------------------------


def test_429_holds_up_all_streams_of_the_host(receiver: Receiver) -> None:
    # Given a host that asks one stream for five minutes
    asked, other = streams_to(receiver.url, 2)
    receiver.will(Answer(429, {"Retry-After": "300"}))
    asked.drain()

    # When others go there, I expect them to wait, without a try
    other.drain()
    time_passes(200)
    work()
    assert len(receiver.requests) == 1
    assert (other.events[0].tries, other.row.lease_token) == (0, None)

    # and all to go on when the time is over
    time_passes(100)
    work_until_delivered(asked, other)
    assert len(receiver.requests) == 3


# -- a process that ends ---------------------------------------------------------------------------


def test_who_lets_go_ends_what_is_under_way_and_begins_nothing(receiver: Receiver) -> None:
    # Given a delivery under way of a stream with more events
    (stream,) = streams_to(receiver.url, 1, START, LOG, EXIT)
    gate = Gate(receiver)
    with under_way(stream):
        gate.wait_for(1)

        # When the process lets go, I expect the answer still to count
        stream_delivery.let_go()
        gate.open()
    assert stream.states == [DELIVERED, PENDING, PENDING]

    # and the stream to be due for another
    assert due_streams.due(10) == [stream.pk]
    stream_delivery.start()
    stream.drain()
    assert sent(receiver) == [("job-0", 1), ("job-0", 2), ("job-0", 3)]
    assert Attempt.objects.count() == 3


def test_who_has_let_go_takes_up_no_other_stream(receiver: Receiver) -> None:
    (stream,) = streams_to(receiver.url, 1)
    stream_delivery.let_go()
    stream.drain()
    assert (receiver.requests, due_streams.due(10)) == ([], [stream.pk])


def test_what_is_abandoned_is_taken_up_at_once_and_accounted_for(receiver: Receiver) -> None:
    # Given a delivery under way
    (stream,) = streams_to(receiver.url, 1, START, EXIT)
    gate = Gate(receiver)
    with under_way(stream):
        gate.wait_for(1)
        assert due_streams.due(10) == []

        # When its process gives up, I expect another to send the same event at once
        stream_delivery.let_go()
        stream_delivery.abandon()
        assert due_streams.due(10) == [stream.pk]
        stream_delivery.start()
        receiver.respond = lambda _: Answer(201)
        stream.drain()
        gate.open()

    # and the first to say nothing any more
    assert stream.states == [DELIVERED, DELIVERED]
    assert sent(receiver) == [("job-0", 1), ("job-0", 1), ("job-0", 2)]
    lost, known = stream.events[0].attempts.order_by("pk")
    assert (lost.status, lost.error.partition(":")[0], known.status) == (None, "interrupted", 201)
    assert stream.events[0].created_at <= lost.time <= known.time
