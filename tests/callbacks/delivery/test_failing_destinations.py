"""A host fails or a process stops: other hosts are not affected, and nothing is lost."""

import socket
import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now

from callbacks.delivery import delivery_attempt, destination_queue, due_streams
from callbacks.delivery.stream_delivery import Deliverer
from callbacks.delivery.thread_limiter import ThreadLimiter
from callbacks.models import Attempt, Destination, Event, Subscription
from callbacks.rules import destination_breaker
from callbacks.rules.outcome import Outcome
from orchestrator_site.base.intervals import DeliveryIntervals
from orchestrator_site.base.values.http_urls import parse
from tests.helpers.delivery_fixtures import (
    DEAD,
    DELIVERED,
    EXIT,
    LOG,
    PATIENT,
    PENDING,
    START,
    Gate,
    Stream,
    attempts,
    deliver,
    deliver_all,
    delivering,
    in_threads,
    parked,
    relay_and_deliver,
    sent,
    streams_to,
    time_passes,
)
from tests.helpers.receiver import Answer, Received, Receiver
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def open_breaker(receiver: Receiver) -> None:
    """Open the breaker of the receiver, for 30 seconds, by a stream that is deleted afterwards."""
    receiver.will(*[Answer(500)] * 5)
    (stream,) = streams_to(receiver.url, 1)
    stream.retry_now(5)
    assert len(receiver.requests) == 5
    receiver.requests.clear()
    Subscription.objects.filter(pk=stream.pk).delete()


def test_a_proxy_that_fails_says_nothing_about_the_destination(receiver: Receiver, settings: Any) -> None:
    # Given a proxy that is down
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    configuration = settings.CONFIGURATION
    settings.CONFIGURATION = replace(configuration, egress_proxy=parse(f"http://127.0.0.1:{port}"))
    stream = Stream(receiver.url)
    stream.publish(START)

    # When an event is tried as often as would open a breaker
    stream.retry_now(destination_breaker.FAILURES_TO_OPEN)

    # I expect the attempts to name the proxy, and a destination without a failure, which gets the event once the proxy is gone
    assert {attempt.error for attempt in Attempt.objects.all()} == {"the proxy of EGRESS_PROXY cannot be reached"}
    assert Destination.objects.get().failures == 0
    settings.CONFIGURATION = configuration
    stream.retry_now()
    assert [event.state for event in Event.objects.all()] == [DELIVERED]


# -- a host that is down ---------------------------------------------------------------------------


def test_streams_for_a_dead_host_are_parked_until_it_is_back() -> None:
    # Given pauses that are longer than the test, and many streams for a port on which nothing listens
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    deliverer = Deliverer(DeliveryIntervals(answer=25.0, breaker_open=3600.0, breaker_open_max=4 * 3600.0))
    streams = streams_to(f"http://127.0.0.1:{port}/", 60)
    for stream in streams[:20]:
        stream.publish(EXIT)
    relay_and_deliver(deliverer)
    time_passes(2)
    relay_and_deliver(deliverer)

    # When its breaker has opened, I expect all to be parked, none to be due, and nothing more to be tried
    assert (parked(), due_streams.due(1000)) == (60, [])
    assert Attempt.objects.count() == 5
    relay_and_deliver(deliverer)
    assert Attempt.objects.count() == 5
    assert not Event.objects.exclude(tries=0, state=PENDING).exists()

    # and one probe after each pause
    for number, hours in enumerate((1, 2, 4, 4), start=6):
        time_passes((hours - 0.5) * 3600)
        relay_and_deliver(deliverer)
        assert Attempt.objects.count() == number - 1
        time_passes(0.5 * 3600)
        relay_and_deliver(deliverer)
        relay_and_deliver(deliverer)
        assert Attempt.objects.count() == number
    assert not Event.objects.exclude(tries=0, state=PENDING).exists()

    # and parked events to expire
    streams[0].age(timedelta(days=1))
    Subscription.objects.filter(pk=streams[0].pk).update(next_attempt_at=F("next_attempt_at") - timedelta(days=1))
    relay_and_deliver(deliverer)
    assert (streams[0].states, streams[0].row.waiting_since) == ([DEAD, DEAD], None)

    # and all others to arrive in order once the host is back, each with its first counted try
    time_passes(4 * 3600)
    with Receiver(port=port) as receiver:
        deliver_all(*streams[1:], deliverer=deliverer)
        receiver.check_order()
        assert len(receiver.requests) == 59 + 19
    assert not Event.objects.filter(state=DELIVERED).exclude(tries=1).exists()


def test_a_half_open_breaker_has_one_probe_however_many_deliver(receiver: Receiver) -> None:
    # Given a half-open breaker, and many streams
    open_breaker(receiver)
    streams = streams_to(receiver.url, 8)
    time_passes(30)
    gate = Gate(receiver)

    # When many threads deliver at once, I expect one request as long as it lasts
    def deliver(number: int) -> None:
        destination_queue.wake_available()
        for stream in streams[number:] + streams[:number]:
            stream.deliver()

    crowd = threading.Thread(target=in_threads, args=(8, deliver))
    crowd.start()
    wait_for(lambda: gate.inside == 1 and parked() == 7, what="a probe, and the others to be parked")
    assert due_streams.due(100) == []
    gate.open()
    crowd.join()

    # and all others when it has been answered
    deliver_all(*streams)
    assert len(receiver.requests) == 8


def test_a_killed_probe_is_replaced(receiver: Receiver) -> None:
    # Given a probe whose process dies before it records the answer
    open_breaker(receiver)
    streams = streams_to(receiver.url, 3)
    time_passes(30)

    def send_and_die(*arguments: Any) -> Outcome:
        delivery_attempt.send(*arguments)
        raise SystemExit

    with pytest.raises(SystemExit):
        deliver(Deliverer(PATIENT, send=send_and_die), streams[1].pk)
    assert len(receiver.requests) == 1

    # Until its lease expires, I expect nothing to be sent
    relay_and_deliver()
    assert len(receiver.requests) == 1

    # and then everything, and the lost attempt to be stored
    time_passes(PATIENT.lease)
    deliver_all(*streams)
    receiver.check_order()
    assert attempts(streams[1].events[0])[0] == (None, "")
    assert streams[1].events[0].tries == 1


def test_hosts_that_hang_leave_threads_for_others(receiver: Receiver) -> None:
    # Given a process with two threads for restricted destinations, a fast host, and four that hang
    deliverer = Deliverer(PATIENT, threads=ThreadLimiter(PATIENT, restricted=2, slow=1))
    deliver_all(*streams_to(receiver.url, 2), deliverer=deliverer)
    with Receiver("0.0.0.0") as hanging:
        gate = Gate(hanging)
        stuck = [Stream(f"http://127.0.0.{number}:{hanging.port}/", deliverer=deliverer) for number in (1, 2, 3, 4)]
        for stream in stuck:
            stream.publish()

        # When all are delivered, I expect two of the four to be tried
        with delivering(*stuck) as threads:
            wait_for(lambda: sum(thread.is_alive() for thread in threads) == 2 and gate.inside == 2)

            # and the fast host to get its events meanwhile
            deliver_all(*streams_to(receiver.url, 3, START, EXIT), deliverer=deliverer)
            gate.open()

        # and the two others a few seconds later
        time_passes(6)
        deliver_all(*stuck, deliverer=deliverer)
        assert gate.max_inside == 2


def make_unreadable(*streams: Stream) -> None:
    """Make the URLs of these streams such that they cannot be decrypted."""
    with connection.cursor() as cursor:
        for stream in streams:
            cursor.execute("UPDATE callbacks_subscription SET url = 'damaged' WHERE id = %s", [stream.pk])


def test_what_was_not_sent_says_nothing_about_its_destination(receiver: Receiver) -> None:
    # Given more streams that cannot be decrypted than the failures that open a breaker
    deliverer = Deliverer(PATIENT)
    streams = streams_to(receiver.url, destination_breaker.FAILURES_TO_OPEN + 1)
    make_unreadable(*streams)
    # When they are tried, I expect their destination to be as before
    for stream in streams:
        deliver(deliverer, stream.pk)
    assert [event.attempts.count() for stream in streams for event in stream.events] == [1] * len(streams)
    assert (Destination.objects.get().failures, Destination.objects.get().open_until) == (0, None)


def test_a_probe_that_was_not_sent_is_replaced(receiver: Receiver) -> None:
    # Given a half-open breaker
    damaged, other = streams_to(receiver.url, 2)
    make_unreadable(damaged)
    Destination.objects.update(failures=5, openings=1, open_until=Now())

    # When its probe cannot be decrypted, I expect the next stream to be the probe
    damaged.deliver()
    other.deliver()
    assert other.states == [DELIVERED]
    assert Destination.objects.get().open_until is None


def test_a_parked_stream_keeps_no_thread(receiver: Receiver) -> None:
    # Given two threads for new hosts, and two new hosts with several streams each
    deliverer = Deliverer(PATIENT, threads=ThreadLimiter(PATIENT, restricted=2, slow=1))
    with Receiver() as other:
        streams = streams_to(receiver.url, 3) + streams_to(other.url, 3)

        # When all are claimed together, I expect one of each host to be sent
        deliveries = deliverer.claim([stream.pk for stream in streams]).deliveries
    assert [delivery.event.subscription_id for delivery in deliveries] == [streams[0].pk, streams[3].pk]


def test_a_host_that_becomes_fast_gives_its_thread_back(receiver: Receiver) -> None:
    # Given a process with one thread for restricted destinations, and a host that has answered well once
    deliverer = Deliverer(PATIENT, threads=ThreadLimiter(PATIENT, restricted=1, slow=1))
    with Receiver() as other:
        (stream,) = streams_to(other.url, 1, deliverer=deliverer)

        def respond(received: Received) -> Answer:
            if received.json["jobsequence"] == 2:
                in_threads(1, lambda _: stream.deliver())
            return Answer()

        # When it gets a second event, I expect another new host to be tried meanwhile
        receiver.respond = respond
        streams_to(receiver.url, 1, START, EXIT, deliverer=deliverer)[0].deliver()
        assert len(other.requests) == 1


# -- a host that answers 429 -----------------------------------------------------------------------


def test_429_blocks_all_streams_of_the_host(receiver: Receiver) -> None:
    # Given a host that asks one stream to wait for five minutes
    asked, other = streams_to(receiver.url, 2)
    receiver.will(Answer(429, {"Retry-After": "300"}))
    asked.deliver()

    # When another stream is delivered, I expect it to be parked, without a try
    other.deliver()
    time_passes(200)
    relay_and_deliver()
    assert len(receiver.requests) == 1
    assert (other.events[0].tries, other.row.lease_token) == (0, None)

    # and both to go on when the time is over
    time_passes(100)
    deliver_all(asked, other)
    assert len(receiver.requests) == 3


# -- a process that stops --------------------------------------------------------------------------


def test_a_stopped_deliverer_records_what_is_in_flight(receiver: Receiver) -> None:
    # Given a delivery in flight, of a stream with more events
    (stream,) = streams_to(receiver.url, 1, START, LOG, EXIT)
    gate = Gate(receiver)
    with delivering(stream):
        gate.wait_for(1)

        # When its process stops, I expect the answer to be recorded
        stream.deliverer.stop()
        gate.open()
    assert stream.states == [DELIVERED, PENDING, PENDING]

    # and the stream to be due for another process
    assert due_streams.due(10) == [stream.pk]
    deliver(Deliverer(PATIENT), stream.pk)
    assert sent(receiver) == [("job-0", 1), ("job-0", 2), ("job-0", 3)]
    assert Attempt.objects.count() == 3


def test_a_stopped_deliverer_sends_nothing_more(receiver: Receiver) -> None:
    (stream,) = streams_to(receiver.url, 1)
    stream.deliverer.stop()
    stream.deliver()
    assert (receiver.requests, due_streams.due(10)) == ([], [stream.pk])


def test_a_stream_whose_lease_is_released_is_due_at_once(receiver: Receiver) -> None:
    # Given a delivery in flight
    (stream,) = streams_to(receiver.url, 1, START, EXIT)
    gate = Gate(receiver)
    with delivering(stream):
        gate.wait_for(1)
        assert due_streams.due(10) == []

        # When its process gives up, I expect another to send the same event at once
        stream.deliverer.stop()
        stream.deliverer.release_leases()
        assert due_streams.due(10) == [stream.pk]
        receiver.respond = lambda _: Answer(201)
        deliver(Deliverer(PATIENT), stream.pk)
        gate.open()

    # and the first to record nothing any more
    assert stream.states == [DELIVERED, DELIVERED]
    assert sent(receiver) == [("job-0", 1), ("job-0", 1), ("job-0", 2)]
    lost, known = stream.events[0].attempts.order_by("pk")
    assert (lost.status, lost.error.partition(":")[0], known.status) == (None, "interrupted", 201)
    assert stream.events[0].created_at <= lost.time <= known.time
