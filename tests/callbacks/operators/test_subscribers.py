"""Operators see where the events of a stream go and what keeps them from going there, without secrets."""

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from callbacks import outbox
from callbacks.models import Destination, Subscription
from callbacks.operators.subscribers import find_subscriber
from tests.helpers import factories

pytestmark = pytest.mark.django_db

SECRET = "s3cr3t-7"


def test_a_stream_without_a_subscriber() -> None:
    assert find_subscriber(uuid.uuid4()) is None
    assert outbox.subscriber(uuid.uuid4()) is None


def test_a_subscriber_without_secrets() -> None:
    stream = uuid.uuid4()
    factories.subscribe(stream, "a", "http://h.example/hook")
    found = find_subscriber(stream)
    assert found is not None
    assert (found.url, found.types, found.signed, found.with_headers) == ("http://h.example/hook", [], False, False)
    assert (found.destination.origin, found.condition, found.waiting) == ("http://h.example:80", "healthy", False)
    assert not found.unfinished
    assert outbox.subscriber(stream) == outbox.Subscriber("http://h.example/hook", (), (), {})


def test_secrets_are_only_counted() -> None:
    # Given a subscriber with secrets
    stream = uuid.uuid4()
    url = f"http://u:{SECRET}@h.example/hook?token={SECRET}"
    factories.subscribe(stream, "a", url, "b", "a", keys=(SECRET, "old"), headers={"X": SECRET})

    # I expect operators to see that there are some
    found = find_subscriber(stream)
    assert found is not None
    assert (found.url, found.types, found.signed, found.with_headers) == ("http://h.example/hook", ["a", "b"], True, True)
    assert SECRET not in repr(found)

    # and the other app to get all that a second subscription needs
    again = outbox.subscriber(stream)
    assert again == outbox.Subscriber(url, ("a", "b"), (SECRET, "old"), {"X": SECRET})
    assert SECRET not in repr(again)


def test_what_keeps_events_from_being_sent() -> None:
    # Given a stream that waits for a host whose breaker is open
    stream = uuid.uuid4()
    factories.subscribe(stream, "a", "http://h.example/")
    Destination.objects.update(open_until=timezone.now() + timedelta(minutes=1))
    Subscription.objects.update(waiting_since=timezone.now())

    # I expect both to be said
    found = find_subscriber(stream)
    assert found is not None
    assert (found.condition, found.waiting) == ("breaker open", True)
