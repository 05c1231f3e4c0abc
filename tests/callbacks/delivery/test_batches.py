"""Many streams are claimed together, and many results are recorded together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext

from callbacks.delivery.stream_delivery import Deliverer
from callbacks.delivery.stream_rows import MAX_RUN, LockedStreams
from callbacks.models import Attempt, Destination, Subscription
from tests.helpers.delivery_fixtures import (
    DELIVERED,
    EXIT,
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
from tests.helpers.receiver import Answer, Receiver

pytestmark = pytest.mark.django_db(transaction=True)

STREAMS = 8

# The statements of a transaction, however many streams it is about.
CLAIM = (
    "lock the streams",
    "read their destination",
    "read the first event of each",
    "lock the destination",
    "count the slots in use",
    "read the secrets of streams that were not delivered lately",
    "store the streams with their leases",
)
RECORD = (
    "lock the streams",
    "read their destination",
    "insert the attempts",
    "mark the events",
    "read the next event of each stream",
    "store the streams",
)


@pytest.fixture
def fast(receiver: Receiver) -> Receiver:
    """A destination that gets as many deliveries at once as any."""
    deliver_all(*streams_to(receiver.url, 1, START, START, EXIT))
    receiver.requests.clear()
    return receiver


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collect the statements of the block, without those that only begin and end transactions."""
    found: list[str] = []
    with CaptureQueriesContext(connection) as queries:
        yield found
    found += [query["sql"] for query in queries if query["sql"].split()[0] not in ("BEGIN", "COMMIT")]


@pytest.mark.parametrize("count", [1, STREAMS])
def test_statements_do_not_grow_with_the_streams(fast: Receiver, count: int) -> None:
    # Given streams with more events each than are sent under one lease
    deliverer = Deliverer(PATIENT)
    streams = streams_to(fast.url, count, START, *[LOG] * MAX_RUN)

    # When they are claimed together, sent, and recorded together
    with statements() as of_claim:
        claimed = deliverer.claim([stream.pk for stream in streams])
    results = [deliverer.send(delivery) for delivery in claimed.deliveries]
    with statements() as of_record:
        recorded = deliverer.record(results)

    # I expect these statements, and the next event of each stream
    assert (len(claimed.deliveries), len(recorded.deliveries)) == (count, count)
    assert [len(result.attempts) for result in results] == [MAX_RUN] * count
    assert len(of_claim) == len(CLAIM), of_claim
    assert len(of_record) == len(RECORD), of_record


def test_slots_are_passed_on_together(fast: Receiver) -> None:
    # Given as many streams as there are slots, and as many that wait for these
    deliverer = Deliverer(PATIENT)
    streams = streams_to(fast.url, 2 * STREAMS)
    claimed = deliverer.claim([stream.pk for stream in streams])
    results = [deliverer.send(delivery) for delivery in claimed.deliveries]

    # When the results are recorded, I expect the waiting streams to get the slots, in their order, with three more statements
    with statements() as of_record:
        recorded = deliverer.record(results)
    assert [delivery.event.subscription_id for delivery in recorded.deliveries] == [stream.pk for stream in streams[STREAMS:]]
    assert len(of_record) == len(RECORD) + len(("lock waiting streams", "read their first events", "read their secrets"))


def test_results_of_one_batch_are_recorded_each_by_its_own(fast: Receiver) -> None:
    # Given a batch of which every other event is refused
    deliverer = Deliverer(PATIENT)
    streams = streams_to(fast.url, 4)
    fast.respond = lambda received: Answer(200 if int(received.json["subject"][-1]) % 2 else 404)

    # When it is recorded
    claimed = deliverer.claim([stream.pk for stream in streams])
    deliverer.record([deliverer.send(delivery) for delivery in claimed.deliveries])

    # I expect each attempt with its own event
    assert [stream.states for stream in streams] == [[PENDING], [DELIVERED], [PENDING], [DELIVERED]]
    assert [stream.events[0].attempts.get().status for stream in streams] == [404, 200, 404, 200]


def test_a_crash_repeats_no_more_than_a_batch(fast: Receiver) -> None:
    # Given a process that has sent the events of some streams and dies before it records anything
    deliverer = Deliverer(PATIENT)
    streams = streams_to(fast.url, 4, START, EXIT)
    for delivery in deliverer.claim([stream.pk for stream in streams]).deliveries:
        deliverer.send(delivery)

    # When its leases have expired, and another delivers
    for stream in streams:
        stream.expire_lease()
    deliver_all(*streams)

    # I expect these events twice, in order, and the first of each stream to have an attempt with an unknown result
    for stream in streams:
        arrived = [received for received in fast.requests if received.json["subject"] == stream.row.subject]
        assert [received.json["jobsequence"] for received in arrived] == [1, 2, 1, 2]
    assert Attempt.objects.filter(event__subscription__in=[stream.pk for stream in streams], status=None).count() == 4


def test_results_that_were_recorded_are_not_recorded_again(fast: Receiver) -> None:
    # Given results whose commit seemed to fail, although it did not
    deliverer = Deliverer(PATIENT)
    (stream,) = streams_to(fast.url, 1, START, *[LOG] * MAX_RUN)
    results = [deliverer.send(delivery) for delivery in deliverer.claim([stream.pk]).deliveries]
    deliverer.record(results)

    # When they are recorded again, I expect nothing to be changed
    row = stream.row
    assert deliverer.record(results).deliveries == []
    assert [event.attempts.count() for event in stream.events] == [1] * MAX_RUN + [0]
    assert (stream.row.lease_token, stream.row.sending) == (row.lease_token, row.sending)


def test_a_transaction_that_fails_changes_no_result(fast: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a refused event whose result could not be recorded
    deliverer = Deliverer(PATIENT)
    (stream,) = streams_to(fast.url, 1)
    fast.will(Answer(404))
    results = [deliverer.send(delivery) for delivery in deliverer.claim([stream.pk]).deliveries]
    with monkeypatch.context() as patch:
        patch.setattr(LockedStreams, "save", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            deliverer.record(results)
    assert not stream.events[0].attempts.exists()

    # When it is recorded again, I expect one try
    deliverer.record(results)
    assert (stream.events[0].tries, stream.events[0].attempts.count()) == (1, 1)


def while_locked(rows: QuerySet[Any], what: Callable[[], Any]) -> Any:
    """Do something in another thread while this one has rows locked; return what it returns."""
    answers: list[Any] = []
    with transaction.atomic():
        assert list(rows.select_for_update())
        in_threads(1, lambda _: answers.append(what()))
    return answers[0]


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no locks on rows")
@pytest.mark.parametrize("what", ["stream", "destination"])
def test_what_is_locked_delays_nothing_else(fast: Receiver, what: str) -> None:
    with Receiver() as other:
        # Given a stream that another session has locked, or its destination, and a stream to another destination
        deliverer = Deliverer(PATIENT)
        (locked,), (free,) = streams_to(other.url, 1), streams_to(fast.url, 1)
        before = locked.row
        rows: QuerySet[Any] = Subscription.objects.filter(pk=locked.pk)
        if what == "destination":
            rows = Destination.objects.filter(pk=before.destination_id)

        # When they are claimed, I expect the other to be sent, and this one to be left for later, unchanged
        claimed = while_locked(rows, lambda: deliverer.claim([locked.pk, free.pk]))
        assert [delivery.event.subscription_id for delivery in claimed.deliveries] == [free.pk]
        assert claimed.locked == [locked.pk]
        assert locked.row.next_attempt_at == before.next_attempt_at

        # and so with results
        claimed.deliveries.extend(deliverer.claim(claimed.locked).deliveries)
        results = [deliverer.send(delivery) for delivery in claimed.deliveries]
        recorded = while_locked(rows, lambda: deliverer.record(results))
        assert (free.states, locked.states) == ([DELIVERED], [PENDING])
        assert recorded.locked == results[1:]
        deliverer.record(recorded.locked)
        assert (locked.states, locked.events[0].attempts.count()) == ([DELIVERED], 1)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no locks on rows")
def test_a_stream_waits_for_no_lock_to_be_parked(fast: Receiver) -> None:
    # Given a delivery in flight to a destination that is paused meanwhile
    deliverer = Deliverer(PATIENT)
    (stream,) = streams_to(fast.url, 1, START, *[LOG] * MAX_RUN)
    results = [deliverer.send(delivery) for delivery in deliverer.claim([stream.pk]).deliveries]
    destination = Destination.objects.filter(pk=stream.row.destination_id)
    destination.update(paused=True)

    # When its result is recorded while another session has locked the destination, I expect it to be left for later
    assert while_locked(destination, lambda: deliverer.record(results)).locked == results
    deliverer.record(results)
    assert (stream.states, parked()) == ([DELIVERED] * MAX_RUN + [PENDING], 1)


def test_secrets_of_streams_that_were_delivered_lately_are_kept(fast: Receiver) -> None:
    # Given a stream whose first event was delivered
    deliverer = Deliverer(PATIENT)
    stream = Stream(fast.url, headers={"X-Tenant": "7"}, deliverer=deliverer)
    stream.publish()
    stream.deliver()

    # When the next one is published, I expect one statement less for it, and the same URL, key and headers
    stream.publish()
    with statements() as of_claim:
        claimed = deliverer.claim([stream.pk])
    assert len(of_claim) == len(CLAIM) - 1
    deliverer.send(claimed.deliveries[0])
    fast.requests[-1].verify("the key")
    assert fast.requests[-1].headers["x-tenant"] == "7"
