"""Third parties get events at a limited rate, and nothing is lost."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from callbacks.delivery import destination_queue, destination_rows, owner_rows, sent_volume
from callbacks.delivery.stream_delivery import Deliverer
from callbacks.delivery.stream_rows import MAX_RUN
from callbacks.models import Destination, Owner, Subscription
from callbacks.operators import destinations
from orchestrator_site.base.egress.host_checks import is_listed_host
from tests.helpers.delivery_fixtures import (
    DELIVERED,
    EXIT,
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
        unlimited = dict.fromkeys(("destination_rate", "key_rate", "namespace_rate"), 10**6)
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


@pytest.mark.parametrize(("limit", "kind"), [("key_rate", "client"), ("namespace_rate", "owner")])
def test_a_key_and_a_namespace_send_at_their_rates_whatever_the_destinations(
    receiver: Receiver, limited: Any, limit: str, kind: str
) -> None:
    # Given a key or a namespace that may send one event per second, and its jobs with two destinations
    deliverer = limited(**{limit: 1})
    with Receiver() as second:
        streams = [Stream(url, **{kind: "a"}, deliverer=deliverer) for url in (receiver.url, second.url)]
        for stream in streams:
            stream.publish(*[LOG] * EVENTS)
            stream.deliver()

        # When they are delivered, I expect one burst in all, and others not to wait for them
        burst = len(receiver.requests) + len(second.requests)
        assert 10 <= burst <= 10 + 2 * SENT_MEANWHILE
        other = Stream(receiver.url, **{kind: "b"}, deliverer=deliverer)
        other.publish(START)
        other.deliver()
        assert other.states == [DELIVERED]

        # And all events in the end, no sooner than the rate allows, and of both streams alike
        passed = 0
        while {state for stream in streams for state in stream.states} != {DELIVERED}:
            passed += 8
            assert passed < 2 * EVENTS
            all_pass(deliverer, 8)
            relay_and_deliver(deliverer)
            done = [stream.states.count(DELIVERED) for stream in streams]
            assert sum(done) <= burst + passed + SENT_MEANWHILE
            assert max(done) == EVENTS or max(done) - min(done) <= burst + MAX_RUN


def all_pass(deliverer: Deliverer, seconds: float) -> None:
    """Let time pass in the database and in this process."""
    time_passes(seconds)
    until = deliverer._volume._owners_until
    until |= {name: moment - timedelta(seconds=seconds) for name, moment in until.items()}


def at_limit(deliverer: Deliverer, seconds: float = 1000.0) -> None:
    """Let as much be sent for the key `a` that it may send nothing for some seconds."""
    deliverer._volume._owners.add("key a", BURST.total_seconds() + seconds)
    deliverer._volume.charge()


def test_streams_sleep_until_their_owner_may_send_their_events(receiver: Receiver, limited: Any) -> None:
    # Given a key at its limit, which may send an event every few minutes, and its streams, which become due one after the other
    deliverer = limited(key_bytes=1)
    at_limit(deliverer)
    streams = [Stream(receiver.url, subject=f"job-{number}", client="a", deliverer=deliverer) for number in range(3)]
    for stream in streams:
        stream.publish(START)
        stream.deliver()

    # I expect each to be due when the ones before it have sent what they may
    assert receiver.requests == []
    promised = [stream.row.promised_at for stream in streams]
    size = len(streams[0].events[0].body)
    assert [later - promised[0] for later in promised] == [timedelta(seconds=size * number) for number in range(3)]
    assert 900 < streams[0].due_in <= 1000
    until = Owner.objects.get(name="key a").limited_until
    assert until == promised[-1] + timedelta(seconds=size)

    # And nothing to change if something wakes them earlier, as a redelivery does
    Subscription.objects.update(next_attempt_at=timezone.now())
    relay_and_deliver(deliverer)
    assert receiver.requests == []
    assert [stream.row.promised_at for stream in streams] == promised
    assert [stream.row.next_attempt_at for stream in streams] == promised

    # When the time of the first comes, I expect it to be sent, although the key has promised more, and not to be charged again
    all_pass(deliverer, 1000)
    relay_and_deliver(deliverer)
    assert [job for job, _ in sent(receiver)] == ["job-0"]
    assert (streams[0].row.promised_at, streams[0].row.promised) == (None, 0)
    assert Owner.objects.get(name="key a").limited_until == until - timedelta(seconds=1000)

    # And the others later
    all_pass(deliverer, 2 * size)
    relay_and_deliver(deliverer)
    assert [job for job, _ in sent(receiver)] == ["job-0", "job-1", "job-2"]


def test_what_was_not_promised_is_charged_when_it_is_sent(receiver: Receiver, limited: Any) -> None:
    # Given a stream that was promised one event, and has two when its time comes
    deliverer = limited(key_rate=1)
    first = Stream(receiver.url, deliverer=deliverer)
    first.publish(START, START)
    first.deliver()  # now the destination counts as fast
    at_limit(deliverer)
    stream = Stream(receiver.url, client="a", deliverer=deliverer)
    stream.publish(START)
    stream.deliver()
    stream.publish(EXIT)
    all_pass(deliverer, 1001)

    # When both are sent, I expect the second to be charged
    before = Owner.objects.get(name="key a").limited_until
    stream.deliver()
    assert stream.states == [DELIVERED] * 2
    after = Owner.objects.get(name="key a").limited_until
    assert after == before + timedelta(seconds=1)


def test_a_promise_holds_until_all_of_it_was_sent(receiver: Receiver, limited: Any) -> None:
    # Given a stream that was promised three events, and runs of one, as on a slow machine
    deliverer = limited(key_rate=1)
    first = Stream(receiver.url, deliverer=deliverer)
    first.publish(START, START)
    first.deliver()  # now the destination counts as fast
    deliverer._sender._intervals = replace(PATIENT, run=0.0)
    at_limit(deliverer)
    stream = Stream(receiver.url, client="a", deliverer=deliverer)
    stream.publish(START, LOG, EXIT)
    stream.deliver()
    assert stream.row.promised == 3
    until = Owner.objects.get(name="key a").limited_until
    all_pass(deliverer, 1000)

    # When its time comes, I expect all three to be sent, and none to be charged again
    stream.deliver()
    assert stream.states == [DELIVERED] * 3
    deliverer._volume.charge()
    assert Owner.objects.get(name="key a").limited_until == until - timedelta(seconds=1000)


def test_promises_take_as_many_statements_for_many_streams_as_for_one(receiver: Receiver, limited: Any) -> None:
    # Given a key at its limit
    deliverer = limited(key_rate=1)
    at_limit(deliverer)
    counts = []
    for count in (1, 2, 20):  # the first creates the rows of the owners
        streams = [Stream(receiver.url, client="a", deliverer=deliverer) for _ in range(count)]
        for stream in streams:
            stream.publish(START)
        with CaptureQueriesContext(connection) as queries:
            deliverer.claim([stream.pk for stream in streams])
        counts.append(len(queries))
        assert all(stream.row.promised == 1 for stream in streams)
    assert counts[1] == counts[2]


def test_what_the_operator_lists_is_not_limited(receiver: Receiver, limited: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a destination that EGRESS_ALLOW lists, and a key that is at its limit because of others
    deliverer = limited(destination_rate=1, namespace_rate=1, key_rate=1)
    monkeypatch.setattr(sent_volume, "is_listed_host", is_listed_host)
    at_limit(deliverer)
    stream = Stream(receiver.url, client="a", deliverer=deliverer)
    stream.publish(*[LOG] * EVENTS)

    # I expect all events at once
    before = list(Owner.objects.values())
    stream.deliver()
    assert len(receiver.requests) == EVENTS
    assert list(Owner.objects.values()) == before


def test_a_locked_row_delays_no_delivery(
    receiver: Receiver, limited: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a destination and a key whose rows another session has locked
    deliverer = limited(key_rate=1)
    Owner.objects.create(name="key a")
    stream = Stream(receiver.url, client="a", deliverer=deliverer)
    stream.publish(START)
    destination = Destination.objects.get()

    def charge(_: int) -> None:
        deliverer._volume._destinations.add(destination.pk, 5.0)
        deliverer._volume._owners.add("key a", 5.0)
        deliverer._volume.charge()

    charged = timedelta(seconds=5)
    with transaction.atomic():
        Owner.objects.select_for_update().get(name="key a")
        Destination.objects.select_for_update().get()
        if connection.vendor == "postgresql":  # SQLite has one lock for everything
            in_threads(1, charge)
            charged *= 2
    assert "charged later" not in caplog.text  # as if it had waited until the database gave up

    # When they are free, I expect all to be charged, once
    before = timezone.now() - timedelta(milliseconds=1)  # SQLite's clock has no shorter times
    charge(0)
    limits = [Owner.objects.get(name="key a").limited_until, Destination.objects.get().limited_until]
    for until in limits:
        assert until is not None
        assert before <= until + BURST - charged <= timezone.now()
    deliverer._volume.charge()
    assert [Owner.objects.get(name="key a").limited_until, Destination.objects.get().limited_until] == limits
    stream.deliver()
    assert stream.states == [DELIVERED]

    # And a stream that has to wait for the key not to wait for the lock, and to be promised a time when it is looked at again
    at_limit(deliverer)
    stream.publish(EXIT)
    if connection.vendor == "postgresql":
        with transaction.atomic():
            Owner.objects.select_for_update().get(name="key a")
            in_threads(1, lambda _: stream.deliver())
    else:
        with monkeypatch.context() as patch:
            patch.setattr(owner_rows, "lock_free", lambda _: {})
            stream.deliver()
    assert (stream.row.promised, stream.row.promised_at) == (0, None)
    assert stream.due_in <= 0
    stream.deliver()
    assert stream.row.promised == 1
    assert stream.due_in > 0
