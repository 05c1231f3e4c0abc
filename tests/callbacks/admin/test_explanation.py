"""The pages of events and destinations say why something was not delivered and what to do, and link to where that is done."""

import re
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from callbacks import outbox
from callbacks.admin.explanation import _ERRORS, explain_destination, explain_event, last_attempt
from callbacks.delivery import destination_rows
from callbacks.models import Attempt, Destination, Event, Owner, Subscription
from tests.helpers import factories

pytestmark = pytest.mark.django_db

REFUSED = "h.example resolves to a non-public address that is not in EGRESS_ALLOW"
DOWN = "cannot connect to h.example port 80: connection refused"


@pytest.fixture
def event() -> Event:
    """A pending event that was not tried yet."""
    stream = uuid.uuid4()
    factories.subscribe(stream, "job-1", "http://h.example/")
    with transaction.atomic():
        outbox.publish(stream, "orchestrator.job.exit", "s", {})
    return Event.objects.get()


def attempt(event: Event, status: int | None = None, error: str = "") -> Attempt:
    error = error or f"answered {status}"
    return Attempt.objects.create(event=event, time=timezone.now(), status=status, latency_ms=1, error=error)


def block(condition: str) -> None:
    """Let the destination be in a condition."""
    soon = timezone.now() + timedelta(minutes=1)
    changes: dict[str, Any] = {
        "paused": {"paused": True},
        "throttled": {"throttled_until": soon},
        "at its limit": {"limited_until": soon},
        "open": {"open_until": soon},
        "half open": {"open_until": timezone.now() - timedelta(minutes=1)},
    }
    Destination.objects.update(**changes[condition])


def explained(event: Event) -> tuple[str, str]:
    explanation = explain_event(Event.objects.get(pk=event.pk), destination_rows.with_database_time().get())
    return explanation.sentence, explanation.advice


@pytest.mark.parametrize(
    ("status", "error", "advice"),
    [
        (None, REFUSED, "add the address to EGRESS_ALLOW"),
        (None, "not sent: the URL cannot be decrypted with ENCRYPTION_KEYS", "to ENCRYPTION_KEYS again"),
        (None, "h.example cannot be resolved: Name or service not known", "Check the name of the host"),
        (None, "the connection to h.example failed: certificate verify failed: self-signed certificate", "CA_BUNDLE"),
        (None, DOWN, "Check that the receiver runs"),
        (None, "h.example did not answer in time", "within 15 s"),
        (None, "interrupted: the process that sent it has ended; it may have arrived", "nothing to do"),
        (None, "something else", "can be reached"),
        (301, "", "Redirects are not followed"),
        (401, "", "the signature or the headers"),
        (404, "", "Check the path"),
        (422, "", "does not take the event"),
        (429, "", "more than it takes"),
        (500, "", "has a fault"),
    ],
)
def test_a_failed_attempt_is_explained(event: Event, status: int | None, error: str, advice: str) -> None:
    # Given an attempt that failed
    last = attempt(event, status, error)

    # I expect it to be named, with what to do about it
    sentence, what_to_do = explained(event)
    assert sentence.startswith("It was not accepted, and is tried again. The last attempt, at ")
    assert sentence.endswith(f": {last.error}.")
    assert advice in what_to_do
    assert what_to_do.endswith("Redeliver it to try at once.")

    # and by its destination, too, which is not blocked yet
    destination = explain_destination(destination_rows.with_database_time().get(), last)
    assert destination.sentence.startswith("Events are sent there. The last attempt, at ")
    assert advice in destination.advice


def test_the_errors_that_are_explained_exist() -> None:
    folders = (Path(__file__).parents[3] / folder for folder in ("callbacks/delivery", "orchestrator_site/base/egress"))
    sources = [path.read_text() for folder in folders for path in folder.glob("*.py")]
    unknown = [part for part, _ in _ERRORS if not any(part in source for source in sources)]
    assert unknown == ["certificate"]  # OpenSSL says that


@pytest.mark.parametrize(
    ("condition", "reason", "advice"),
    [
        ("paused", "an operator has paused", "Resume the destination."),
        ("throttled", "has asked for a pause (429)", "reset the destination"),
        ("at its limit", "gets no more per second", "add its name to EGRESS_ALLOW"),
        ("open", "have all failed, so nothing is sent there", "reset the destination"),
        ("half open", "so one event at a time is tried", "reset the destination"),
    ],
)
def test_a_destination_that_gets_nothing_is_explained(event: Event, condition: str, reason: str, advice: str) -> None:
    # Given an event that failed, for a destination that gets nothing now
    attempt(event, error=DOWN)
    block(condition)

    # I expect the condition, the last error, and what to do about both, for the event and for the destination
    destination = explain_destination(destination_rows.with_database_time().get(), last_attempt(event))
    for sentence, what_to_do in (explained(event), (destination.sentence, destination.advice)):
        assert reason in sentence.lower()
        assert DOWN in sentence
        assert "Check that the receiver runs" in what_to_do
        assert advice in what_to_do


def test_what_a_pending_event_waits_for(event: Event) -> None:
    # Given an event after another
    with transaction.atomic():
        outbox.publish(event.subscription.stream, "orchestrator.job.complete", "s", {})

    # I expect the first to be sent soon, and the second to wait for it
    soon = ("It is about to be sent.", "If this lasts, check that a process deliver runs.")
    assert explained(event) == soon
    second = Event.objects.get(sequence=2)
    assert "an earlier event of its job waits" in explained(second)[0]

    # and the first to wait for the time that it is promised, because of the owner that is at its limit for longer
    later = timezone.now() + timedelta(minutes=1)
    Subscription.objects.update(owner="team-a", client="orch_key", promised_at=later)
    Owner.objects.create(name="namespace team-a", limited_until=later)
    key = Owner.objects.create(name="key orch_key", limited_until=later - timedelta(seconds=1))
    assert explained(event) == (
        "It is not sent now: no more is sent per second for the namespace team-a.",
        "Wait, or raise NAMESPACE_RATE and NAMESPACE_BYTES.",
    )
    Owner.objects.filter(pk=key.pk).update(limited_until=later + timedelta(seconds=1))
    assert explained(event) == (
        "It is not sent now: no more is sent per second for the key orch_key.",
        "Wait, or raise KEY_RATE and KEY_BYTES.",
    )
    Subscription.objects.update(promised_at=timezone.now() - timedelta(seconds=1))

    # and the same as before if both are sent again: the first was delivered, the second was not accepted
    Attempt.objects.create(event=event, time=timezone.now(), status=204, latency_ms=1)
    attempt(second, 500)
    assert explained(event) == soon
    assert "an earlier event of its job waits" in explained(second)[0]


@pytest.mark.parametrize(
    ("changes", "status", "sentence", "advice"),
    [
        ({}, 410, "its receiver answered 410 (Gone): it never wants this event", "correct the receiver or the callback's URL"),
        ({"tries": 10}, 503, "its receiver refused it 10 times.", "The receiver has a fault"),
        ({"tries": 1}, 400, "its receiver refused it once.", "does not take the event"),
        ({"expires_at": timezone.now() - timedelta(days=1)}, 503, "could not be delivered for a day.", "has a fault"),
        ({}, None, "could not be delivered for a day.", "Check that the receiver runs"),
    ],
)
def test_a_dead_event_is_explained(event: Event, changes: dict[str, Any], status: int | None, sentence: str, advice: str) -> None:
    attempt(event, status, DOWN if status is None else "")
    Event.objects.update(state=Event.State.DEAD, settled_at=timezone.now(), **changes)
    said, what_to_do = explained(event)
    assert sentence in said
    assert advice in what_to_do
    assert what_to_do.endswith("Then redeliver the event, or all that died at its destination.")


def test_an_event_that_died_without_an_attempt_is_explained(event: Event) -> None:
    Event.objects.update(state=Event.State.DEAD, settled_at=timezone.now())
    assert "given up after a day without an attempt" in explained(event)[0]
    Event.objects.update(state=Event.State.DELIVERED)
    assert explained(event) == ("It was delivered.", "")


def test_the_pages_lead_to_each_other(event: Event, client: Client) -> None:
    # Given a dead event, and one that waits for the same destination, which is down
    client.force_login(User.objects.create_superuser("olga"))
    subscription, destination = event.subscription, event.subscription.destination
    attempt(event, error=DOWN)
    with transaction.atomic():
        outbox.publish(subscription.stream, "orchestrator.job.complete", "s", {})
    waiting = Event.objects.get(sequence=2)
    Event.objects.filter(pk=event.pk).update(state=Event.State.DEAD, settled_at=timezone.now())
    Attempt.objects.create(event=waiting, time=timezone.now(), latency_ms=1, error=DOWN)
    block("open")

    # I expect each page to lead to the others
    pages = {
        "job": f"/admin/jobs/job/{subscription.stream}/change/",
        "dead": f"/admin/callbacks/event/{event.pk}/change/",
        "waiting": f"/admin/callbacks/event/{waiting.pk}/change/",
        "subscription": f"/admin/callbacks/subscription/{subscription.pk}/change/",
        "destination": f"/admin/callbacks/destination/{destination.pk}/change/",
        "events": "/admin/callbacks/event/?q=job-1",
    }

    def links(name: str) -> set[str]:
        page = client.get(pages[name]).content.decode()
        return {
            other for other, address in pages.items() if other != name and re.search(rf'href="{re.escape(address)}["?]', page)
        }

    assert links("dead") >= {"job", "subscription", "destination"}
    assert links("waiting") >= {"job", "subscription", "destination"}
    assert links("subscription") >= {"job", "destination", "events", "dead", "waiting"}
    assert links("destination") >= {"job", "dead", "waiting"}
    assert links("events") >= {"job", "dead", "waiting"}

    # and to ask for nothing twice, although unfold evaluates each field several times
    for name in ("dead", "waiting", "subscription", "destination"):
        with CaptureQueriesContext(connection) as queries:
            client.get(pages[name])
        asked = [query["sql"] for query in queries if '"callbacks_event"' in query["sql"]]
        assert sorted(set(asked)) == sorted(asked), name

    # and to show no event to a user who may not see events
    viewer = User.objects.create_user("vera", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename__in=["view_destination", "view_subscription"]))
    client.force_login(viewer)
    for name in ("destination", "subscription"):
        page = client.get(pages[name]).content.decode()
        assert destination.origin in page
        assert "/admin/callbacks/event/" not in page
    client.force_login(User.objects.get(username="olga"))

    # and that of the destination to say what the last error was, and to do so for a stream that waits for it, too
    assert DOWN in client.get(pages["destination"]).content.decode()
    Subscription.objects.update(waiting_since=timezone.now())
    assert links("destination") >= {"waiting"}
    assert DOWN in client.get(pages["destination"]).content.decode()
