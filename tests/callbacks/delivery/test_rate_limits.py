"""Third parties get events at a limited rate, and nothing is lost."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from callbacks.delivery import destination_queue, destination_rows, sent_volume
from callbacks.delivery.stream_delivery import Deliverer
from callbacks.delivery.stream_rows import MAX_RUN
from callbacks.models import Destination, Owner
from callbacks.operators import destinations
from orchestrator_site.base.egress.host_checks import is_listed_host
from tests.helpers.delivery_fixtures import (
    DELIVERED,
    LOG,
    PATIENT,
    PENDING,
    START,
    Stream,
    in_threads,
    parked,
    relay_and_deliver,
    sent,
    time_passes,
)
from tests.helpers.receiver import Receiver

pytestmark = pytest.mark.django_db(transaction=True)

EVENTS = 40
BURST = timedelta(seconds=10)
SENT_MEANWHILE = 2 * MAX_RUN  # before a process has charged what it has sent


@pytest.fixture
def limited(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes deliverers with these limits, for which the receiver is a third party."""
    monkeypatch.setattr(sent_volume, "is_listed_host", lambda *_: False)
    monkeypatch.setattr(sent_volume, "settings", settings)
    quick = replace(PATIENT, burst=BURST.total_seconds(), charge=0.5, thread_wait=(0.0, 0.0))

    def make(**limits: int) -> Deliverer:
        unlimited = dict.fromkeys(("destination_rate", "namespace_rate"), 10**6)
        settings.CONFIGURATION = replace(settings.CONFIGURATION, **(unlimited | limits))
        return Deliverer(quick)

    return make


def test_a_destination_gets_events_at_its_rate(receiver: Receiver, limited: Any) -> None:
    # Given a destination that may get one event per second, after a burst of ten, and a job with many
    deliverer = limited(destination_rate=1)
    stream = Stream(receiver.url, deliverer=deliverer)
    stream.publish(*[LOG] * EVENTS)

    # When they are delivered, I expect the burst, and what is sent before it is charged, once; the stream waits, and is not woken
    stream.deliver()
    burst = len(receiver.requests)
    assert 10 <= burst <= 10 + SENT_MEANWHILE
    until = Destination.objects.get().limited_until
    deliverer._volume.charge()
    assert Destination.objects.get().limited_until == until
    assert parked() == 1
    assert not destination_queue.available().exists()
    relay_and_deliver(deliverer)
    assert len(receiver.requests) == burst

    # And events at the rate as time passes, in their order
    time_passes(20)
    relay_and_deliver(deliverer)
    assert burst < len(receiver.requests) <= 10 + 20 + SENT_MEANWHILE
    while len(receiver.requests) < EVENTS:
        time_passes(20)
        relay_and_deliver(deliverer)
    assert sent(receiver) == [("job-1", number) for number in range(1, EVENTS + 1)]
    assert set(stream.states) == {DELIVERED}


def test_the_bytes_of_events_are_limited_too(receiver: Receiver, limited: Any) -> None:
    # Given a destination that may get 30 bytes per second, a tenth of an event
    deliverer = limited(destination_bytes=30)
    stream = Stream(receiver.url, deliverer=deliverer)
    stream.publish(*[LOG] * EVENTS)
    stream.deliver()
    assert len(receiver.requests) < EVENTS


def test_all_processes_share_a_limit(receiver: Receiver, limited: Any) -> None:
    # Given a destination whose limit another process has reached, as its row says
    stream = Stream(receiver.url, deliverer=limited(destination_rate=1))
    stream.publish(*[LOG] * EVENTS)
    stream.deliver()
    receiver.requests.clear()
    assert destinations.condition(destination_rows.with_database_time().get()) == "at its limit"

    # When a third one delivers an event of another job, I expect it to wait
    other = Stream(receiver.url, subject="job-2", deliverer=limited(destination_rate=1))
    other.publish(START)
    other.deliver()
    assert (other.states, receiver.requests) == ([PENDING], [])


def test_a_namespace_sends_at_its_rate_whatever_the_destinations(receiver: Receiver, limited: Any) -> None:
    # Given a namespace that may send one event per second, and its jobs with two destinations
    deliverer = limited(namespace_rate=1)
    with Receiver() as second:
        streams = [Stream(url, owner="team-a", deliverer=deliverer) for url in (receiver.url, second.url)]
        for stream in streams:
            stream.publish(*[LOG] * EVENTS)
            stream.deliver()

        # When they are delivered, I expect one burst in all, and others not to wait for them
        burst = len(receiver.requests) + len(second.requests)
        assert 10 <= burst <= 10 + 2 * SENT_MEANWHILE
        other = Stream(receiver.url, owner="team-b", deliverer=deliverer)
        other.publish(START)
        other.deliver()
        assert other.states == [DELIVERED]

        # And all events in the end
        for _ in range(100):
            if all(set(stream.states) == {DELIVERED} for stream in streams):
                break
            time_passes(20)
            deliverer._volume._owners_until.clear()  # this process has not noticed that time has passed
            relay_and_deliver(deliverer)
        assert [set(stream.states) for stream in streams] == [{DELIVERED}] * 2


def test_what_the_operator_lists_is_not_limited(receiver: Receiver, limited: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a destination that EGRESS_ALLOW lists
    deliverer = limited(destination_rate=1, namespace_rate=1)
    monkeypatch.setattr(sent_volume, "is_listed_host", is_listed_host)
    stream = Stream(receiver.url, deliverer=deliverer)
    stream.publish(*[LOG] * EVENTS)

    # I expect all events at once
    stream.deliver()
    assert len(receiver.requests) == EVENTS
    assert not Owner.objects.exists()


def test_a_locked_row_delays_no_delivery(receiver: Receiver, limited: Any) -> None:
    # Given an owner whose row another session has locked
    deliverer = limited(namespace_rate=1)
    Owner.objects.create(name="team-a")
    stream = Stream(receiver.url, owner="team-a", deliverer=deliverer)
    stream.publish(START)

    def charge(_: int) -> None:
        deliverer._volume._owners.add("team-a", 5.0)
        deliverer._volume.charge()

    charged = timedelta(seconds=5)
    with transaction.atomic():
        Owner.objects.select_for_update().get(name="team-a")
        if transaction.get_connection().vendor == "postgresql":  # SQLite has one lock for everything
            in_threads(1, charge)
            charged *= 2

    # When it is free, I expect all to be charged, once
    before = timezone.now() - timedelta(milliseconds=1)  # SQLite's clock has no shorter times
    charge(0)
    until = Owner.objects.get(name="team-a").limited_until
    assert until is not None
    assert before <= until + BURST - charged <= timezone.now()
    deliverer._volume.charge()
    assert Owner.objects.get(name="team-a").limited_until == until
    stream.deliver()
    assert stream.states == [DELIVERED]
