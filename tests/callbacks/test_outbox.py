"""Events are stored with the change that they report."""

import json
import uuid
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from callbacks import delivery_hints, outbox
from callbacks.cloudevents import EventTooLarge
from callbacks.models import Attempt, Event, Subscription
from orchestrator_site.base import notifications
from orchestrator_site.base.egress.http_client import EgressDenied
from tests.helpers import factories
from tests.helpers.delivery_fixtures import in_threads

pytestmark = pytest.mark.django_db(transaction=True)

URL = "https://user:s3cr3t@hook.example:8443/path?token=s3cr3t"
START, LOG = "orchestrator.job.start", "orchestrator.job.log"


@pytest.fixture
def stream() -> UUID:
    return uuid.uuid4()


@pytest.fixture(autouse=True)
def hints(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The topics of the hints that were sent."""
    sent: list[str] = []
    monkeypatch.setattr(notifications, "notify", sent.append)
    return sent


def subscribe(stream: UUID, *types: str) -> Subscription:
    factories.subscribe(stream, "job-1", URL, *types, keys=("key",))
    return Subscription.objects.get(stream=stream)


def publish(stream: UUID, *types: str) -> None:
    with transaction.atomic():
        for type_ in types:
            outbox.publish(stream, type_, "orchestrator/service", {"jobId": "job-1", "meta": {}})


def publish_and_roll_back(stream: UUID) -> None:
    with transaction.atomic():
        publish(stream, START)
        raise RuntimeError


def test_events_are_numbered_and_pending(stream: UUID) -> None:
    # Given a subscription
    subscription = subscribe(stream)

    # When three events are published in two transactions
    publish(stream, START, LOG)
    publish(stream, LOG)

    # I expect them numbered without a gap, each with its own id, and with bytes that match the row
    events = list(Event.objects.order_by("sequence"))
    assert [event.sequence for event in events] == [1, 2, 3]
    assert len({event.pk for event in events}) == 3
    for event in events:
        body = json.loads(bytes(event.body))
        assert (body["id"], body["jobsequence"]) == (str(event.pk), event.sequence)
        assert (body["type"], body["source"], body["time"]) == (event.type, event.source, event.time)
        assert body["subject"] == "job-1"
        assert event.state == Event.State.PENDING
        assert event.expires_at - event.created_at == timedelta(days=1)
    subscription.refresh_from_db()
    assert subscription.next_attempt_at is not None
    assert subscription.last_sequence == 3


def test_many_events_take_as_many_statements_as_one(stream: UUID) -> None:
    # Given a subscription that has an event already
    subscribe(stream)
    publish(stream, START)

    # When some events of one type are published together
    counts = []
    for number in (1, 20):
        with transaction.atomic(), CaptureQueriesContext(connection) as queries:
            outbox.publish_all(stream, LOG, "orchestrator/service", [{"lines": [str(line)]} for line in range(number)])
        counts.append(len(queries))

    # I expect an update that takes numbers and an insert, however many there are, and the events in their order
    assert counts == [2, 2]
    bodies = [json.loads(bytes(event.body)) for event in Event.objects.order_by("sequence")]
    assert [body["jobsequence"] for body in bodies] == list(range(1, 23))
    assert [body["data"]["lines"] for body in bodies[2:]] == [[str(line)] for line in range(20)]
    assert Subscription.objects.get().last_sequence == 22


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite keeps the plans of the last statements by itself")
def test_statements_for_one_event_are_planned_once(stream: UUID) -> None:
    # When events of some types are published, one by one and together
    subscribe(stream)
    for number in range(1, 4):
        publish(stream, *[START, LOG][:number])
        with transaction.atomic():
            outbox.publish_all(stream, LOG, "orchestrator/service", [{"lines": ["x" * number]}] * 3)

    # I expect the connection to have prepared the update and the insert of one event, and no insert of several
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        prepared = [text for (text,) in cursor.fetchall()]
    assert {text.split()[0] for text in prepared} == {"INSERT", "UPDATE"}
    assert not any("), (" in text for text in prepared)


def test_no_events_change_nothing(stream: UUID, hints: list[str]) -> None:
    subscribe(stream)
    with transaction.atomic():
        outbox.publish_all(stream, LOG, "orchestrator/service", [])
    assert not Event.objects.exists()
    assert Subscription.objects.get().next_attempt_at is None
    assert hints == []


def test_secrets_are_encrypted_but_the_origin_is_not(stream: UUID) -> None:
    factories.subscribe(stream, "job-1", URL, keys=("s3cr3t-new", "s3cr3t-old"), headers={"Authorization": "s3cr3t"})
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM callbacks_subscription")
        row = repr(cursor.fetchall())
    subscription = Subscription.objects.get(stream=stream)
    assert subscription.destination.origin == "https://hook.example:8443"
    assert (subscription.key, subscription.previous_key) == ("s3cr3t-new", "s3cr3t-old")
    assert subscription.headers == {"Authorization": "s3cr3t"}
    for secret in ("s3cr3t", "Authorization", "/path"):
        assert secret not in row


def test_a_second_key_and_headers_are_null_if_there_are_none(stream: UUID) -> None:
    """As in rows of a release that does not know these columns."""
    subscribe(stream)
    with connection.cursor() as cursor:
        cursor.execute("SELECT previous_key, headers FROM callbacks_subscription")
        assert cursor.fetchall() == [(None, None)]
    subscription = Subscription.objects.get(stream=stream)
    assert (subscription.key, subscription.previous_key, subscription.headers) == ("key", None, None)


def test_only_subscribed_types_are_stored_and_numbered(stream: UUID) -> None:
    # Given a subscription to one type, a stream without any, and one to all types
    subscribe(stream, START)
    everything, nothing = uuid.uuid4(), uuid.uuid4()
    subscribe(everything)

    # When other types are published, too
    publish(stream, LOG, START, LOG, START)
    publish(nothing, START)
    publish(everything, LOG)

    # I expect those to be stored for the third alone
    kept = Event.objects.order_by("sequence").values_list("subscription__stream", "sequence", "type")
    assert [row[1:] for row in kept if row[0] == stream] == [(1, START), (2, START)]
    assert [row for row in kept if row[0] != stream] == [(everything, 1, LOG)]


def test_a_transaction_sends_one_hint_after_its_commit(stream: UUID, hints: list[str]) -> None:
    subscribe(stream)
    with transaction.atomic():
        publish(stream, START, LOG)
        publish(stream, LOG)
        assert hints == []
    assert hints == [delivery_hints.TOPIC]


def test_a_due_stream_gets_no_second_hint(stream: UUID, hints: list[str]) -> None:
    subscribe(stream)
    publish(stream, START)
    Subscription.objects.update(next_attempt_at=Now() - timedelta(seconds=1))
    publish(stream, LOG)
    assert hints == [delivery_hints.TOPIC]


def test_a_rolled_back_event_is_not_published(stream: UUID, hints: list[str]) -> None:
    # Given an event in a transaction that is rolled back
    subscribe(stream)
    with pytest.raises(RuntimeError):
        publish_and_roll_back(stream)

    # I expect no event, hint or gap; and if only a savepoint is rolled back, the rest to be published
    assert hints == []
    with transaction.atomic():
        with pytest.raises(RuntimeError):
            publish_and_roll_back(stream)
        publish(stream, LOG)
    assert list(Event.objects.values_list("sequence", "type")) == [(1, LOG)]
    assert hints == [delivery_hints.TOPIC]


def test_events_are_published_without_a_broker(stream: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    subscribe(stream)
    monkeypatch.setattr(notifications, "notify", lambda _: 1 / 0)
    publish(stream, START)
    assert Event.objects.count() == 1


def test_publishing_requires_a_transaction(stream: UUID) -> None:
    subscribe(stream)
    with pytest.raises(transaction.TransactionManagementError):
        outbox.publish(stream, START, "s", {})


def test_an_event_that_is_too_large_is_refused(stream: UUID) -> None:
    subscribe(stream)
    with pytest.raises(EventTooLarge), transaction.atomic():
        outbox.publish(stream, START, "s", {"a": "x" * 70_000})
    assert Subscription.objects.get().last_sequence == 0


def test_a_destination_that_is_not_a_url_is_refused(stream: UUID) -> None:
    with pytest.raises(EgressDenied):
        factories.subscribe(stream, "job-1", "file:///etc/passwd")


def test_forgetting_deletes_one_stream_and_no_other(stream: UUID) -> None:
    # Given two streams with events and attempts, more than a batch
    other = uuid.uuid4()
    for each in (stream, other):
        subscribe(each)
        publish(each, *[START] * 5)
    for event in Event.objects.all():
        Attempt.objects.create(event=event, time=event.created_at, latency_ms=1)

    # When one of them is forgotten, and one that does not exist
    outbox.forget([stream, uuid.uuid4()], batch_size=2)

    # I expect the rows of the other only
    assert list(Subscription.objects.values_list("stream", flat=True)) == [other]
    assert set(Event.objects.values_list("subscription__stream", flat=True)) == {other}
    assert Attempt.objects.count() == 5


def test_forgetting_clears_the_lease_before_it_deletes(stream: UUID) -> None:
    # Given a stream whose event is being delivered
    subscribe(stream)
    publish(stream, START)
    Subscription.objects.update(lease_token=uuid.uuid4(), lease_until=Now() + timedelta(seconds=30), waiting_since=Now())
    seen: list[tuple[Any, ...]] = []

    def look(_: int) -> None:
        seen.extend(Subscription.objects.values_list("lease_token", "lease_until", "next_attempt_at", "waiting_since"))

    def look_before(execute: Any, statement: str, *args: Any) -> Any:
        if statement.startswith('DELETE FROM "callbacks_event"'):
            in_threads(1, look)  # with a connection of its own
        return execute(statement, *args)

    # When it is forgotten
    with connection.execute_wrapper(look_before):
        outbox.forget([stream])

    # I expect the lease to be gone, and the stream not to be due, before the first event is deleted
    assert seen == [(None, None, None, None)]


def test_forgetting_commits_after_each_batch(stream: UUID) -> None:
    # Given a stream with more events than a batch
    subscribe(stream)
    publish(stream, *[START] * 5)
    seen: list[int] = []

    def look(_: int) -> None:
        seen.append(Event.objects.count())

    def look_before(execute: Any, statement: str, *args: Any) -> Any:
        if statement.startswith('DELETE FROM "callbacks_event"'):
            in_threads(1, look)  # with a connection of its own
        return execute(statement, *args)

    # When it is forgotten
    with connection.execute_wrapper(look_before):
        outbox.forget([stream], batch_size=2)

    # I expect other connections to see it shrink by batches
    assert seen == [5, 3, 1]
    assert not Event.objects.exists()
