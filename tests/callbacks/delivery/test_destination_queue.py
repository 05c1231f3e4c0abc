"""Many streams share a destination: how many it gets at once, who waits, and what an operator may do."""

import random
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.db.models.functions import Now
from django.utils import timezone

from callbacks import outbox
from callbacks.delivery import delivery_attempt, destination_queue, due_streams, stream_delivery
from callbacks.models import Destination, Subscription
from callbacks.rules.outcome import Outcome
from orchestrator_site.base.db.transactions import release_connection
from tests.helpers.api_calls import configured
from tests.helpers.delivery_fixtures import (
    DEAD,
    DELIVERED,
    EXIT,
    LOG,
    PENDING,
    START,
    Gate,
    Stream,
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


@pytest.fixture
def one_at_once() -> Iterator[None]:
    with configured(deliveries_per_host=1):
        yield


# -- how many at once, and who is next -------------------------------------------------------------


def test_a_host_gets_no_more_at_once_than_configured_however_many_streams(receiver: Receiver) -> None:
    # Given a host that has proven itself, and many streams for it
    work_until_delivered(*streams_to(receiver.url, 2))
    receiver.requests.clear()
    gate = Gate(receiver)
    streams = streams_to(receiver.url, 24, START, EXIT)
    done = threading.Event()

    def deliver(number: int) -> None:
        order = random.Random(number)
        while not done.wait(0.005):
            if due := due_streams.due(100):
                stream_delivery.drain(order.choice(due))

    # When many deliver, I expect three requests at once, and all other streams to wait
    with configured(deliveries_per_host=3):
        crowd = threading.Thread(target=in_threads, args=(12, deliver))
        crowd.start()
        try:
            wait_for(lambda: gate.inside == 3 and waiting() == 21, what="three under way, and the others to wait")
            assert due_streams.due(100) == []
            gate.open()

            # and everything to arrive in the end, each once and in order
            wait_for(lambda: destination_queue.wake_available() or len(receiver.requests) >= 48, what="all to arrive")
        finally:
            done.set()
            gate.open()
            crowd.join()
    assert (gate.most, len(receiver.requests)) == (3, 48)
    receiver.check_order()
    assert all(set(stream.states) == {DELIVERED} for stream in streams)


@pytest.mark.usefixtures("one_at_once")
def test_streams_wait_their_turn_and_get_it_without_the_relay(receiver: Receiver) -> None:
    # Given one under way, and others that come after it
    first, *others = [Stream(receiver.url, subject=f"job-{number}") for number in range(4)]
    first.publish()
    gate = Gate(receiver)
    with under_way(first):
        gate.wait_for(1)
        for stream in (others[1], others[0], others[2]):
            stream.publish()
            stream.drain()
        assert due_streams.due(10) == []

        # also where one is woken too early
        Subscription.objects.filter(pk=others[1].pk).update(next_attempt_at=Now())
        others[1].drain()
        assert due_streams.due(10) == []
        gate.open()

    # When it is done, I expect the others to be sent, one after the other
    assert [subject for subject, _ in sent(receiver)] == ["job-0", "job-2", "job-1", "job-3"]
    assert all(event.tries == 1 for stream in others for event in stream.events)
    assert gate.most == 1


@pytest.mark.usefixtures("one_at_once")
@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_first_that_waits_shows_the_others_that_they_have_to(receiver: Receiver, number: int) -> None:
    # Given one under way, and others that are due
    first, *others = streams_to(receiver.url, 4)
    gate = Gate(receiver)
    with under_way(first):
        gate.wait_for(1)

        # When one finds no room, I expect all to wait, in the order in which they came
        others[number].drain()
        assert (waiting(), due_streams.due(10)) == (3, [])
        gate.open()
    assert [subject for subject, _ in sent(receiver)] == ["job-0", "job-1", "job-2", "job-3"]


@pytest.mark.usefixtures("one_at_once")
def test_a_stream_is_taken_up_again_when_whoever_was_handed_its_place_dies(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two streams that wait, and a place for the first of them
    streams = streams_to(receiver.url, 2)
    destination = streams[0].row.destination_id
    destination_queue.pause(destination)
    for stream in streams:
        stream.drain()
    assert waiting() == 2
    destination_queue.resume(destination)

    # When a process hands the place on to the second, and dies while it sends
    send = delivery_attempt.send

    def send_once(*arguments: Any) -> Outcome:
        if receiver.requests:
            raise OperationalError("killed")
        return send(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(delivery_attempt, "send", send_once)
        with pytest.raises(OperationalError):
            streams[0].drain()
    assert [stream.states for stream in streams] == [[DELIVERED], [PENDING]]

    # I expect the second to be found as soon as that lease is over, and sent
    streams[1].lose_lease()
    assert due_streams.due(10) == [streams[1].pk]
    streams[1].drain()
    assert [stream.states for stream in streams] == [[DELIVERED], [DELIVERED]]


@pytest.mark.usefixtures("one_at_once")
@pytest.mark.parametrize("status", [404, 500])
def test_a_refused_delivery_gives_its_place_to_the_next(receiver: Receiver, status: int) -> None:
    # Given one under way, and others that wait for its place
    first, *others = streams_to(receiver.url, 3)
    gate = Gate(receiver, Answer(status))
    with under_way(first):
        gate.wait_for(1)
        for stream in others:
            stream.drain()
        gate.open()

    # When it is refused, I expect the next one to be due at once
    assert due_streams.due(10) == [others[0].pk]


@pytest.mark.usefixtures("one_at_once")
def test_a_long_stream_goes_to_the_end_of_the_queue(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a stream with many events, and others that wait for it
    monkeypatch.setattr(stream_delivery, "_MOST_ATTEMPTS", 3)
    long = Stream(receiver.url, subject="long")
    long.publish(*[LOG] * 7)
    gate = Gate(receiver)
    others = streams_to(receiver.url, 3)
    with under_way(long):
        gate.wait_for(1)
        for stream in others:
            stream.drain()
        gate.open()

    # When all of them go on, I expect it to let them go first
    work_until_delivered(long, *others)
    subjects = [subject for subject, _ in sent(receiver)]
    assert subjects == ["long"] * 3 + ["job-0", "job-1", "job-2"] + ["long"] * 4
    receiver.check_order()


def test_a_host_is_one_however_it_is_spelled() -> None:
    for url in ("https://Hook.Example/a?token=1", "https://user:s3cr3t@hook.example:443/b", "HTTPS://hook.example./"):
        Stream(url)
    Stream("http://hook.example/")
    Stream("https://hook.example:8443/")
    assert sorted(Destination.objects.values_list("origin", flat=True)) == [
        "http://hook.example:80",
        "https://hook.example:443",
        "https://hook.example:8443",
    ]


@pytest.mark.parametrize("status", [200, 404])
def test_who_wakes_others_holds_no_connection(receiver: Receiver, status: int) -> None:
    # Given a host that is trusted with more and more, and streams that wait for that
    first, *others = streams_to(receiver.url, 6)
    first.publish(LOG, EXIT)
    release_connection()
    own = connections["default"]  # this thread's
    held: list[bool] = []

    def respond(received: Received) -> Answer:
        held.append(own.connection is not None)
        if received.json["subject"] == "job-0" and received.json["jobsequence"] == 1:
            in_threads(1, lambda _: [stream.drain() for stream in others])
        return Answer(200 if received.json["jobsequence"] < 3 else status)

    # When they are woken, I expect no connection to be held while a peer is waited for
    receiver.respond = respond
    first.drain()
    assert len(held) >= 3
    assert not any(held)

    # nor by a thread that has nothing to do
    assert own.connection is None


# -- operators -------------------------------------------------------------------------------------


def test_a_paused_host_gets_nothing_until_it_is_resumed(receiver: Receiver) -> None:
    # Given a pause while a delivery is under way
    streams = streams_to(receiver.url, 3, START, EXIT)
    destination = streams[0].row.destination_id
    gate = Gate(receiver)
    with under_way(streams[0]):
        gate.wait_for(1)
        destination_queue.pause(destination)
        gate.open()

    # When time passes, I expect what was under way to have ended, and nothing else to be sent
    time_passes(3600)
    work()
    assert sent(receiver) == [("job-0", 1)]
    assert streams[0].states == [DELIVERED, PENDING]

    # and events to die at their age
    streams[1].age(timedelta(days=1))
    Subscription.objects.filter(pk=streams[1].pk).update(next_attempt_at=Now())
    work()
    assert streams[1].states == [DEAD, DEAD]

    # and the others to arrive when it is resumed
    destination_queue.resume(destination)
    assert streams[0].pk in due_streams.due(10)
    work_until_delivered(streams[0], streams[2])
    receiver.check_order()


def test_a_reset_host_is_tried_at_once(receiver: Receiver) -> None:
    # Given a host that is left alone: it has not answered one stream, told another to wait, and then failed
    silent, told, waits = streams_to(receiver.url, 3)
    receiver.will(*[Answer(fault="reset")] * 4, Answer(429, {"Retry-After": "500"}))
    silent.drain()
    silent.try_now(3)
    told.drain()
    Destination.objects.update(open_until=timezone.now() + timedelta(seconds=500), failures=5, openings=4)
    waits.drain()
    work()
    assert len(receiver.requests) == 5

    # When it is reset
    destination_queue.reset(silent.row.destination_id)

    # I expect what it left unanswered to be tried now, and what waited
    work_until_delivered(silent, waits)

    # and what it told to wait to be sent in its time
    assert (told.states, len(receiver.requests)) == ([PENDING], 7)
    assert told.waits > 400


def test_no_stream_is_forgotten_that_begins_to_wait_while_its_host_is_resumed(receiver: Receiver) -> None:
    # Given a host that was paused while a stream waited for it that is gone
    gone, stream = [Stream(receiver.url, subject=f"job-{number}") for number in range(2)]
    destination = stream.row.destination_id
    destination_queue.pause(destination)
    gone.publish()
    gone.drain()
    outbox.forget([gone.uuid])
    resuming = threading.Thread(target=in_threads, args=(1, lambda _: destination_queue.resume(destination)))

    def resume_before(execute: Any, statement: str, *args: Any) -> Any:
        if statement.startswith('UPDATE "callbacks_subscription"') and resuming.ident is None:
            resuming.start()
            if connection.vendor == "postgresql":
                resuming.join()  # on SQLite it waits for us
        return execute(statement, *args)

    # When it is resumed while another has seen that there is a queue, and is about to join it
    with connection.execute_wrapper(resume_before):
        stream.publish()
    resuming.join()

    # I expect that one to be sent
    work_until_delivered(stream)


# -- rows that nobody needs ------------------------------------------------------------------------


def test_destinations_are_forgotten_a_day_after_their_last_use(receiver: Receiver) -> None:
    # Given one with a stream, one that is paused, one of today, and one that nobody needs
    Stream(receiver.url)
    paused, unused = (destination_queue.find(f"https://{name}.example:443") for name in ("paused", "unused"))
    destination_queue.pause(paused.pk)
    time_passes(25 * 3600)
    destination_queue.find("https://new.example:443")

    # When there is time to forget, I expect the last one to be gone
    assert destination_queue.forget_unused() == 1
    assert not Destination.objects.filter(pk=unused.pk).exists()
    assert Destination.objects.count() == 3
    assert destination_queue.forget_unused() == 0


@pytest.mark.parametrize("first", ["find", "forget"])
def test_no_destination_is_forgotten_that_is_being_used(first: str) -> None:
    # Given one that nobody has used for long
    url = "https://hook.example/"
    destination_queue.find("https://hook.example:443")
    time_passes(25 * 3600)
    others: list[threading.Thread] = []

    def use() -> None:
        with transaction.atomic():
            Stream(url)

    def begin(other: Any) -> None:
        others.append(threading.Thread(target=in_threads, args=(1, lambda _: other())))
        others[0].start()

    def begin_before_the_deletion(execute: Any, statement: str, *args: Any) -> Any:
        if statement.startswith('DELETE FROM "callbacks_destination"') and not others:
            begin(use)
        return execute(statement, *args)

    # When it is used and forgotten at the same time
    if first == "find":
        with transaction.atomic():
            Stream(url)
            begin(destination_queue.forget_unused)
    else:
        with connection.execute_wrapper(begin_before_the_deletion):
            destination_queue.forget_unused()
    others[0].join()
    release_connection()

    # I expect the stream to have one
    assert Subscription.objects.get().destination.origin == "https://hook.example:443"
    assert Destination.objects.count() == 1
