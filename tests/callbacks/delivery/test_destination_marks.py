"""A destination is marked while streams wait for it, even if streams are published, delivered and woken at once."""

import pytest
from django.db import connection, transaction

from callbacks import delivery_hints
from callbacks.delivery import destination_queue, due_streams
from callbacks.models import Destination
from callbacks.operators import destinations
from orchestrator_site.base import notifications
from tests.helpers.delivery_fixtures import Stream, in_threads, parked, streams_to
from tests.helpers.receiver import Receiver

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no locks on rows")
def test_destinations_are_marked_without_waiting_for_locks(receiver: Receiver) -> None:
    with Receiver() as other:
        # Given streams that wait for two destinations which are not marked
        for stream in (*streams_to(receiver.url, 1), *streams_to(other.url, 1)):
            destinations.pause(stream.row.destination_id)
            stream.deliver()
        Destination.objects.update(waiting=False)
        locked, free = Destination.objects.order_by("pk")

        # When another session has locked one of them, I expect the other to be marked, and this one as soon as it is free
        with transaction.atomic():
            Destination.objects.select_for_update().get(pk=locked.pk)
            in_threads(1, lambda _: destination_queue.wake_unmarked())
        assert list(Destination.objects.filter(waiting=True)) == [free]
        destination_queue.wake_unmarked()
        assert Destination.objects.filter(waiting=True).count() == 2


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one transaction at a time")
def test_a_stream_that_is_about_to_be_parked_is_not_forgotten(receiver: Receiver) -> None:
    # Given a destination that is marked, although no stream waits for it any more
    stream = Stream(receiver.url)
    destination = Destination.objects.filter(pk=stream.row.destination_id)
    destination.update(waiting=True)
    woken: list[bool] = []

    def wake() -> bool:
        in_threads(1, lambda _: woken.append(destination_queue.wake_waiting(stream.row.destination_id)))
        return woken[-1]

    # When a publisher has seen the mark and has not committed yet, I expect the mark to remain
    with transaction.atomic():
        stream.publish()
        assert not wake()
    assert destination.get().waiting

    # and its stream to be woken as soon as it has committed
    assert (parked(), wake(), due_streams.due(10)) == (1, True, [stream.pk])


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one transaction at a time")
def test_a_stream_is_due_if_the_mark_of_its_destination_is_being_removed(receiver: Receiver) -> None:
    stream = Stream(receiver.url)
    Destination.objects.update(waiting=True)

    # When an event is published while another session removes the mark, I expect its stream to be due, without a wait
    with transaction.atomic():
        assert destination_queue._unmark(stream.row.destination_id)
        in_threads(1, lambda _: stream.publish())
    assert (parked(), due_streams.due(10)) == (0, [stream.pk])


def test_a_destination_that_a_stream_waits_for_keeps_its_mark(receiver: Receiver) -> None:
    # Given a stream that was parked after a look at the queue had found it empty
    stream, *_ = streams_to(receiver.url, 1)
    destinations.pause(stream.row.destination_id)
    stream.deliver()
    assert parked() == 1

    # I expect the second look to find it
    with transaction.atomic():
        assert not destination_queue._unmark(stream.row.destination_id)
    assert Destination.objects.get().waiting


def test_a_stream_that_waits_for_an_unmarked_destination_is_woken(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a stream that waits for a destination which accepts deliveries and is not marked
    stream, *_ = streams_to(receiver.url, 1)
    destinations.pause(stream.row.destination_id)
    stream.deliver()
    Destination.objects.update(paused=False, waiting=False)

    # When the relay finds it, I expect it to be due at once: streams that become due next would only wait behind it
    hints: list[str] = []
    monkeypatch.setattr(notifications, "notify", hints.append)
    destination_queue.wake_unmarked()
    assert due_streams.due(10) == [stream.pk]

    # and deliverers to be told
    assert hints == [delivery_hints.TOPIC]
