"""Streams share a destination: how many deliveries it gets at once, and which stream is next."""

import random
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.db.models.functions import Now

from callbacks import outbox
from callbacks.delivery import delivery_attempt, destination_queue, due_streams
from callbacks.delivery.stream_delivery import Deliverer
from callbacks.models import Destination, Subscription
from callbacks.operators import destinations
from callbacks.rules.outcome import Outcome
from orchestrator_site.base.db.transactions import release_connection
from tests.helpers.api_calls import configured
from tests.helpers.delivery_fixtures import (
    DELIVERED,
    EXIT,
    LOG,
    PATIENT,
    PENDING,
    START,
    Gate,
    Stream,
    deliver,
    deliver_all,
    delivering,
    in_threads,
    parked,
    sent,
    streams_to,
)
from tests.helpers.receiver import Answer, Received, Receiver
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def one_slot() -> Iterator[None]:
    """Each destination gets one delivery at a time."""
    with configured(deliveries_per_host=1):
        yield


def test_a_host_gets_no_more_deliveries_at_once_than_configured(receiver: Receiver) -> None:
    # Given a host that has answered well, and many streams for it
    deliver_all(*streams_to(receiver.url, 2))
    receiver.requests.clear()
    gate = Gate(receiver)
    deliverer = Deliverer(PATIENT)
    streams = streams_to(receiver.url, 12, START, EXIT)
    done = threading.Event()

    def deliver_any(number: int) -> None:
        order = random.Random(number)
        while not done.wait(0.005):
            if due := due_streams.due(100):
                deliver(deliverer, order.choice(due))

    # When many threads deliver, I expect three requests at once, and all other streams to be parked
    with configured(deliveries_per_host=3):
        crowd = threading.Thread(target=in_threads, args=(8, deliver_any))
        crowd.start()
        try:
            wait_for(lambda: gate.inside == 3 and parked() == 9, what="three in flight, and the others parked")
            assert due_streams.due(100) == []
            gate.open()

            # and everything to arrive in the end, each event once and in order
            wait_for(lambda: destination_queue.wake_available() or len(receiver.requests) >= 24, what="all to arrive")
        finally:
            done.set()
            gate.open()
            crowd.join()
    assert (gate.max_inside, len(receiver.requests)) == (3, 24)
    receiver.check_order()
    assert all(set(stream.states) == {DELIVERED} for stream in streams)


@pytest.mark.usefixtures("one_slot")
def test_parked_streams_are_delivered_in_turn_without_the_relay(receiver: Receiver) -> None:
    # Given a delivery in flight, and streams that come after it
    first, *others = [Stream(receiver.url, subject=f"job-{number}") for number in range(4)]
    first.publish()
    gate = Gate(receiver)
    with delivering(first):
        gate.wait_for(1)
        for stream in (others[1], others[0], others[2]):
            stream.publish()
            stream.deliver()
        assert due_streams.due(10) == []

        # one of which is woken too early
        Subscription.objects.filter(pk=others[1].pk).update(next_attempt_at=Now())
        others[1].deliver()
        assert due_streams.due(10) == []
        gate.open()

    # When it is done, I expect the others to be sent, one after the other
    assert [subject for subject, _ in sent(receiver)] == ["job-0", "job-2", "job-1", "job-3"]
    assert all(event.tries == 1 for stream in others for event in stream.events)
    assert gate.max_inside == 1


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no locks on rows")
def test_streams_are_woken_without_waiting_for_locks(receiver: Receiver) -> None:
    # Given two streams that are parked for a destination with one free slot
    locked, free = streams_to(receiver.url, 2)
    destination = Destination.objects.get()
    destinations.pause(destination.pk)
    for stream in (locked, free):
        stream.deliver()
    Destination.objects.update(paused=False)
    woken: list[bool] = []

    def wake() -> bool:
        in_threads(1, lambda _: woken.append(destination_queue.wake_waiting(destination.pk)))
        return woken[-1]

    # When another session has locked the destination, I expect to be told so, and no stream to be due
    with transaction.atomic():
        Destination.objects.select_for_update().get()
        assert not wake()
    assert due_streams.due(10) == []

    # When it has locked both streams, I expect to be told so
    with transaction.atomic():
        list(Subscription.objects.select_for_update())
        assert not wake()
    assert due_streams.due(10) == []

    # When it has locked the first stream, I expect the second to be due
    with transaction.atomic():
        Subscription.objects.select_for_update().get(pk=locked.pk)
        assert wake()
    assert due_streams.due(10) == [free.pk]


@pytest.mark.usefixtures("one_slot")
@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_first_parked_stream_parks_the_other_due_ones(receiver: Receiver, number: int) -> None:
    # Given a delivery in flight, and other streams that are due
    first, *others = streams_to(receiver.url, 4)
    for seconds, stream in enumerate(reversed(others), 1):
        Subscription.objects.filter(pk=stream.pk).update(next_attempt_at=Now() - timedelta(seconds=seconds))
    gate = Gate(receiver)
    with delivering(first):
        gate.wait_for(1)

        # When one finds no slot, I expect all to be parked, in the order in which they became due
        others[number].deliver()
        assert (parked(), due_streams.due(10)) == (3, [])
        gate.open()
    assert [subject for subject, _ in sent(receiver)] == ["job-0", "job-1", "job-2", "job-3"]


@pytest.mark.usefixtures("one_slot")
def test_a_stream_is_found_if_the_process_that_got_its_slot_dies(receiver: Receiver) -> None:
    # Given two parked streams, and a slot for the first of them
    streams = streams_to(receiver.url, 2)
    destination = streams[0].row.destination_id
    destinations.pause(destination)
    for stream in streams:
        stream.deliver()
    assert parked() == 2
    destinations.resume(destination)

    # When a process passes the slot on to the second, and dies while it sends
    def send_once(*arguments: Any) -> Outcome:
        if receiver.requests:
            raise OperationalError("killed")
        return delivery_attempt.send(*arguments)

    with pytest.raises(OperationalError):
        deliver(Deliverer(PATIENT, send=send_once), streams[0].pk)
    assert [stream.states for stream in streams] == [[DELIVERED], [PENDING]]

    # I expect the second to be found as soon as that lease is over, and sent
    streams[1].expire_lease()
    assert due_streams.due(10) == [streams[1].pk]
    streams[1].deliver()
    assert [stream.states for stream in streams] == [[DELIVERED], [DELIVERED]]


@pytest.mark.usefixtures("one_slot")
@pytest.mark.parametrize("status", [404, 500])
def test_a_failed_delivery_frees_its_slot_for_the_next_stream(receiver: Receiver, status: int) -> None:
    # Given a delivery in flight, and streams that wait for its slot
    first, *others = streams_to(receiver.url, 3)
    gate = Gate(receiver, Answer(status))
    with delivering(first):
        gate.wait_for(1)
        for stream in others:
            stream.deliver()
        gate.open()

    # When it fails, I expect the next stream to be due at once
    assert due_streams.due(10) == [others[0].pk]


@pytest.mark.usefixtures("one_slot")
def test_a_long_stream_goes_to_the_end_of_the_queue(receiver: Receiver) -> None:
    # Given a stream with many events, and others that wait for it
    deliverer = Deliverer(PATIENT, max_attempts=3)
    long = Stream(receiver.url, subject="long", deliverer=deliverer)
    long.publish(*[LOG] * 7)
    gate = Gate(receiver)
    others = streams_to(receiver.url, 3)
    with delivering(long):
        gate.wait_for(1)
        for stream in others:
            stream.deliver()
        gate.open()

    # When all of them go on, I expect the others to be delivered first
    deliver_all(long, *others, deliverer=deliverer)
    subjects = [subject for subject, _ in sent(receiver)]
    assert subjects == ["long"] * 3 + ["job-0", "job-1", "job-2"] + ["long"] * 4
    receiver.check_order()


@pytest.mark.parametrize("status", [200, 404])
def test_a_deliverer_that_wakes_streams_holds_no_connection(receiver: Receiver, status: int) -> None:
    # Given a host whose window grows, and streams that are parked until it does
    first, *others = streams_to(receiver.url, 6)
    first.publish(LOG, EXIT)
    release_connection()
    own = connections["default"]  # this thread's
    held: list[bool] = []

    def respond(received: Received) -> Answer:
        held.append(own.connection is not None)
        if received.json["subject"] == "job-0" and received.json["jobsequence"] == 1:
            in_threads(1, lambda _: [stream.deliver() for stream in others])
        return Answer(200 if received.json["jobsequence"] < 3 else status)

    # When they are woken, I expect no connection to be held while waiting for an answer
    receiver.respond = respond
    first.deliver()
    assert len(held) >= 3
    assert not any(held)

    # nor by a thread that has nothing to do
    assert own.connection is None


def test_a_stream_parked_while_its_host_is_resumed_is_not_lost(receiver: Receiver) -> None:
    # Given a host that was paused while a stream waited for it that has been deleted since
    gone, stream = [Stream(receiver.url, subject=f"job-{number}") for number in range(2)]
    destination = stream.row.destination_id
    destinations.pause(destination)
    gone.publish()
    gone.deliver()
    outbox.forget([gone.uuid])
    resuming = threading.Thread(target=in_threads, args=(1, lambda _: destinations.resume(destination)))

    def resume_before(execute: Any, statement: str, *args: Any) -> Any:
        if statement.startswith('UPDATE "callbacks_subscription"') and resuming.ident is None:
            resuming.start()
            if connection.vendor == "postgresql":
                resuming.join()  # on SQLite it waits for us
        return execute(statement, *args)

    # When it is resumed as another stream is about to join its queue
    with connection.execute_wrapper(resume_before):
        stream.publish()
    resuming.join()

    # I expect that stream to be delivered
    deliver_all(stream)
