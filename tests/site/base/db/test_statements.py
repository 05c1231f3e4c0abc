"""Statements in SQL store and read the same values as Django's ORM."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from callbacks.models import Attempt, Destination, Event, Subscription
from orchestrator_site.base.db.statements import (
    Statement,
    as_time,
    execute_together,
    insert_rows,
    insertion,
    select_rows,
    update_rows,
)
from tests.helpers.delivery_fixtures import Stream

pytestmark = pytest.mark.django_db(transaction=True)

DESTINATION_FIELDS = ("origin", "used_at", "paused", "failures", "openings", "throttles", "window", "waiting")

TIME = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.fixture
def streams() -> list[Stream]:
    return [Stream("http://127.0.0.1:9/", headers={"X-Number": str(number)}) for number in range(3)]


def test_rows_are_updated_each_with_its_own_values(streams: list[Stream]) -> None:
    # Given three rows, and changes to two of them, in which a column is NULL throughout
    first, second, other = Subscription.objects.order_by("pk")
    first.lease_token, first.lease_until, first.bulk_refused = uuid4(), TIME, True
    second.lease_token, second.lease_until = None, None

    # When they are stored
    update_rows(Subscription, [first, second], ("lease_token", "lease_until", "bulk_refused", "sending"))

    # I expect the ORM to read these values, and the third row to be as it was
    fields = ("lease_token", "lease_until", "bulk_refused", "sending")
    assert list(Subscription.objects.order_by("pk").values_list(*fields)) == [
        (first.lease_token, TIME, True, None),
        (None, None, False, None),
        (None, None, False, None),
    ]
    assert Subscription.objects.get(pk=other.pk).headers == {"X-Number": "2"}


def test_encrypted_fields_stay_encrypted(streams: list[Stream]) -> None:
    row = Subscription.objects.get(pk=streams[0].pk)
    row.key, row.headers = "s3cr3t", {"Authorization": "s3cr3t"}
    update_rows(Subscription, [row], ("key", "headers"))
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM callbacks_subscription")
        assert "s3cr3t" not in repr(cursor.fetchall())
    row.refresh_from_db()
    assert (row.key, row.headers) == ("s3cr3t", {"Authorization": "s3cr3t"})


def test_rows_are_inserted(streams: list[Stream]) -> None:
    streams[0].publish()
    event = Event.objects.get()
    new = [Attempt(event=event, time=TIME, status=status, latency_ms=7, error="é", answer="'%s'") for status in (200, None)]
    insert_rows(Attempt, new, ("event", "time", "status", "latency_ms", "error", "answer"))
    stored = Attempt.objects.order_by("pk").values_list("event", "time", "status", "latency_ms", "error", "answer")
    assert list(stored) == [(event.pk, TIME, status, 7, "é", "'%s'") for status in (200, None)]


def test_no_rows_need_no_statement(django_assert_num_queries: object) -> None:
    with django_assert_num_queries(0):  # type: ignore[operator]
        insert_rows(Attempt, [], ("time",))
        update_rows(Subscription, [], ("sending",))


def test_rows_are_read_as_the_orm_reads_them(streams: list[Stream]) -> None:
    # Given rows with times, ids and encrypted values
    Subscription.objects.update(lease_until=TIME, sending=uuid4(), waiting_since=Now())

    # When they are read by SQL, I expect the same as from the ORM, and the database's time
    rows = select_rows(Subscription, "WHERE id <> %s ORDER BY id", [streams[0].pk])
    assert [row.pk for row in rows] == [stream.pk for stream in streams[1:]]
    for row in rows:
        same = Subscription.objects.get(pk=row.pk)
        for field in Subscription._meta.concrete_fields:
            assert getattr(row, field.attname) == getattr(same, field.attname), field.name
        assert abs(row.now - timezone.now()) < timedelta(minutes=1)  # type: ignore[attr-defined]


def test_omitted_fields_are_not_read(streams: list[Stream]) -> None:
    (row,) = select_rows(Subscription, "WHERE id = %s", [streams[0].pk], omit=Subscription.SECRETS)
    assert row.get_deferred_fields() == set(Subscription.SECRETS)
    assert row.destination == Destination.objects.get()


def test_sqlite_answers_times_as_text() -> None:
    assert as_time("2026-01-02 03:04:05.678") == TIME.replace(microsecond=678000)
    assert as_time(TIME) == TIME


def destination(origin: str) -> Statement:
    now = timezone.now()
    return insertion(Destination, [Destination(origin=origin, used_at=now)], DESTINATION_FIELDS)


def test_if_one_of_several_statements_fails_nothing_is_stored() -> None:
    twice = destination("http://second.example:80")
    with pytest.raises(IntegrityError):
        execute_together([destination("http://first.example:80"), twice, twice])
    assert not Destination.objects.exists()


def test_inside_a_transaction_statements_are_a_part_of_it() -> None:
    def change() -> None:
        with transaction.atomic():
            execute_together([destination("http://first.example:80"), destination("http://second.example:80")])
            assert Destination.objects.count() == 2
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change()
    assert not Destination.objects.exists()
