"""The admin pages of callbacks show deliveries, without secrets, and let operators act on them."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import transaction
from django.test import Client, RequestFactory
from django.utils import timezone

from callbacks import outbox
from callbacks.models import Attempt, Destination, Event, Subscription
from callbacks.operators import redelivery
from orchestrator_site.base import large_lists, operator_log
from tests.helpers import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(rf: RequestFactory) -> Any:
    """A request of a superuser."""
    request = rf.get("/")
    request.user = User.objects.create_superuser("operator")
    return request


@pytest.mark.parametrize("model", [Destination, Subscription, Event])
def test_pages_show_no_secrets_and_change_nothing(operator: Any, model: Any) -> None:
    # Given a subscription with secrets, and an event
    factories.subscribe(
        uuid.uuid4(), "job-1", "https://u:s3cr3t@h.example/p?t=s3cr3t", keys=("s3cr3t", "s3cr3t2"), headers={"X": "s3cr3t"}
    )
    with transaction.atomic():
        outbox.publish(Subscription.objects.get().stream, "orchestrator.job.start", "s", {})
    page = admin.site.get_model_admin(model)
    row = model.objects.get()

    # When the pages of the model are shown
    detail = page.changeform_view(operator, str(row.pk)).render().content.decode()
    listing = page.changelist_view(operator).render().content.decode()

    # I expect no secret, and no permission to change anything
    assert ("h.example" if model is Destination else "job-1") in detail
    assert "s3cr3t" not in detail + listing
    assert not page.has_add_permission(operator)
    assert not page.has_change_permission(operator, row)
    assert not page.has_delete_permission(operator, row)


# -- actions ---------------------------------------------------------------------------------------------


@pytest.fixture
def event() -> Event:
    """A dead event, in a stream with nothing pending."""
    stream = uuid.uuid4()
    factories.subscribe(stream, "job-1", "http://h.example/")
    with transaction.atomic():
        outbox.publish(stream, "orchestrator.job.start", "s", {})
    Event.objects.update(state=Event.State.DEAD, tries=10, settled_at=timezone.now())
    Subscription.objects.update(next_attempt_at=None)
    return Event.objects.get()


@pytest.fixture
def browser(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("operator"))
    return client


def press(browser: Client, model: str, row: Any, button: str, **fields: str) -> Any:
    """Open the dialog of a button on a row's page, and submit it."""
    address = f"/admin/callbacks/{model}/{row.pk}/{button}/"
    assert b"<form" in browser.get(address).content
    return browser.post(address, {"_form_submitted": "True", **fields})


def choose(browser: Client, model: str, action: str, *rows: Any) -> None:
    """Select rows of a list, and run an action."""
    selected = {"action": action, "_selected_action": [str(row.pk) for row in rows]}
    assert browser.post(f"/admin/callbacks/{model}/", selected).status_code == 302


def test_an_event_is_shown_with_its_attempts(browser: Client, event: Event) -> None:
    Attempt.objects.create(event=event, time=timezone.now(), latency_ms=17, status=503, error="answered 503", answer="sorry")
    page = browser.get(f"/admin/callbacks/event/{event.pk}/change/").content.decode()
    for shown in ("503", "17 ms", "answered 503", "sorry", "dead"):
        assert shown in page


def test_an_event_says_how_its_destination_is_doing(browser: Client, event: Event) -> None:
    Destination.objects.update(paused=True)
    page = browser.get(f"/admin/callbacks/event/{event.pk}/change/").content.decode()
    destination = Destination.objects.get()
    assert f'href="/admin/callbacks/destination/{destination.pk}/change/">{destination.origin} (paused)</a>' in page


def test_a_pending_event_says_what_it_waits_for(browser: Client, event: Event) -> None:
    # Given an event after one that was refused
    now = timezone.now()
    Event.objects.update(state=Event.State.PENDING, tries=1, settled_at=None, next_attempt_at=now + timedelta(minutes=2))
    with transaction.atomic():
        outbox.publish(event.subscription.stream, "orchestrator.job.exit", "s", {})
    later = Event.objects.get(sequence=2)

    def said(event: Event) -> str:
        page = browser.get(f"/admin/callbacks/event/{event.pk}/change/").content.decode()
        return page.split("Waits for", 1)[1].split("Destination", 1)[0]

    # I expect the second to name the first
    assert f'/admin/callbacks/event/{event.pk}/change/">orchestrator.job.start 1, which is sent before it</a>' in said(later)

    # and the first what comes next, whatever that is
    assert "its next attempt" in said(event)
    Subscription.objects.update(waiting_since=now)
    assert "its destination" in said(event)
    Event.objects.update(state=Event.State.DELIVERED)
    assert "its" not in said(event)


def test_an_event_is_redelivered(browser: Client, event: Event) -> None:
    answer = press(browser, "event", event, "redeliver")
    assert answer["HX-Redirect"] == f"/admin/callbacks/event/{event.pk}/change/"
    assert Event.objects.get().state == Event.State.PENDING


def test_selected_events_are_redelivered(browser: Client, event: Event) -> None:
    choose(browser, "event", "redeliver_selected", event)
    assert Event.objects.get().state == Event.State.PENDING


def test_an_action_for_more_rows_than_it_may_be_for_does_nothing(
    browser: Client, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two events and two destinations, and actions that are for one row at most
    monkeypatch.setattr(large_lists, "MAX_CHOSEN", 1)
    factories.subscribe(uuid.uuid4(), "job-2", "http://i.example/")
    with transaction.atomic():
        outbox.publish(event.subscription.stream, "orchestrator.job.exit", "s", {})

    # When they are run for all, I expect a message, and no change
    for model, action in (("event", "redeliver_selected"), ("destination", "pause_selected")):
        rows = {"event": Event, "destination": Destination}[model].objects.all()
        selected = {"action": action, "select_across": "1", "_selected_action": str(rows[0].pk)}
        page = browser.post(f"/admin/callbacks/{model}/", selected, follow=True).content.decode()
        assert "choose at most 1 at a time" in page
    assert Event.objects.get(pk=event.pk).state == Event.State.DEAD
    assert not Destination.objects.filter(paused=True).exists()


def messages_of(browser: Client) -> list[tuple[str, str]]:
    """Return the messages that the next page shows, each with its level."""
    page: Any = browser.get("/admin/callbacks/destination/")
    return [(message.level_tag, message.message) for message in page.context["messages"]]


@pytest.mark.parametrize(
    ("model", "button", "otherwise"),
    [
        ("subscription", "redeliver_dead", "Nothing is sent again: the job has no dead events."),
        ("destination", "redeliver", "Nothing is sent again: none of its events has died since then."),
    ],
)
def test_it_is_said_why_nothing_is_redelivered(browser: Client, event: Event, model: str, button: str, otherwise: str) -> None:
    # Given an event that died
    row = event.subscription if model == "subscription" else event.subscription.destination
    since = timezone.now() - timedelta(hours=1)
    fields = {"since_0": f"{since:%Y-%m-%d}", "since_1": f"{since:%H:%M:%S}"} if model == "destination" else {}

    # I expect it to be redelivered, and after it was delivered a warning
    press(browser, model, row, button, **fields)
    [(level, said)] = messages_of(browser)
    assert (level, said.endswith("will be sent again.")) == ("success", True)
    Event.objects.update(state=Event.State.DELIVERED)
    press(browser, model, row, button, **fields)
    assert messages_of(browser) == [("warning", otherwise)]


@pytest.mark.parametrize(
    ("model", "button"),
    [
        ("destination", "pause"),
        ("destination", "resume"),
        ("destination", "reset"),
        ("destination", "redeliver"),
        ("subscription", "redeliver_dead"),
        ("event", "redeliver"),
    ],
)
def test_a_row_that_was_deleted_cannot_be_acted_on(browser: Client, event: Event, model: str, button: str) -> None:
    # Given a page of a row that is deleted meanwhile
    row = {"destination": event.subscription.destination, "subscription": event.subscription, "event": event}[model]
    Subscription.objects.all().delete()
    Destination.objects.all().delete()

    # When its button is pressed, I expect the list and a message
    answer = press(browser, model, row, button, since_0="2026-01-01", since_1="00:00:00")
    assert answer["HX-Redirect"] == f"/admin/callbacks/{model}/"
    assert messages_of(browser) == [("warning", f"Nothing was done: the {model} was deleted meanwhile.")]
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("action", ["pause_selected", "resume_selected", "reset_selected"])
def test_destinations_may_be_deleted_while_they_are_acted_on(
    browser: Client, event: Event, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two destinations, of which one is deleted after it was chosen
    kept = event.subscription.destination
    unused = Destination.objects.create(origin="https://unused.example:443", used_at=timezone.now())
    monkeypatch.setattr(operator_log, "record", lambda *_: Destination.objects.filter(pk=unused.pk).delete())

    # When both are acted on, I expect that of the other
    choose(browser, "destination", action, kept, unused)
    (done, said), deleted = messages_of(browser)
    assert (done, said.startswith(f"{kept.origin}: ")) == ("success", True)
    assert deleted == ("warning", "1 destination had been deleted meanwhile.")

    # and when only rows that are gone are chosen, a message
    choose(browser, "destination", action, unused)
    assert messages_of(browser) == [("warning", "Nothing was done: what was chosen does not exist any more.")]


def test_all_dead_events_of_a_job_are_redelivered(browser: Client, event: Event) -> None:
    press(browser, "subscription", event.subscription, "redeliver_dead")
    assert Event.objects.get().state == Event.State.PENDING


def test_events_that_died_since_a_time_are_redelivered(browser: Client, event: Event) -> None:
    # Given an event that died less than two hours ago
    destination = event.subscription.destination
    since = timezone.now() - timedelta(hours=2)

    # When the time is left empty, I expect the form to be shown again
    answer = press(browser, "destination", destination, "redeliver", since_0="", since_1="")
    assert b"required" in answer.content

    # and when it is filled in, the event to be redelivered
    press(browser, "destination", destination, "redeliver", since_0=f"{since:%Y-%m-%d}", since_1=f"{since:%H:%M:%S}")
    redelivery.process_requests()
    assert Event.objects.get().state == Event.State.PENDING


def test_a_destination_is_paused_resumed_and_reset(browser: Client, event: Event) -> None:
    destination = event.subscription.destination

    def row() -> Destination:
        return Destination.objects.get()

    # With the buttons of its page
    press(browser, "destination", destination, "pause")
    assert row().paused
    press(browser, "destination", destination, "resume")
    assert not row().paused
    Destination.objects.update(failures=5, open_until=timezone.now() + timedelta(minutes=1))
    press(browser, "destination", destination, "reset")
    assert (row().failures, row().open_until) == (0, None)

    # and with the actions of the list
    choose(browser, "destination", "pause_selected", destination)
    assert row().paused
    choose(browser, "destination", "resume_selected", destination)
    assert not row().paused
    Destination.objects.update(failures=5)
    choose(browser, "destination", "reset_selected", destination)
    assert row().failures == 0


@pytest.mark.parametrize(
    ("model", "button"),
    [("destination", "pause"), ("destination", "reset"), ("destination", "redeliver"), ("event", "redeliver")],
)
def test_a_user_who_may_only_view_cannot_act(client: Client, event: Event, model: str, button: str) -> None:
    # Given a user who may view everything
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client.force_login(user)
    row = event if model == "event" else event.subscription.destination

    # I expect the pages to be shown, and all actions to be refused
    assert client.get(f"/admin/callbacks/{model}/{row.pk}/change/").status_code == 200
    assert client.post(f"/admin/callbacks/{model}/{row.pk}/{button}/", {"_form_submitted": "True"}).status_code == 403
    client.post(f"/admin/callbacks/{model}/", {"action": f"{button}_selected", "_selected_action": [str(row.pk)]})
    assert not Destination.objects.filter(paused=True).exists()
    assert Event.objects.get().state == Event.State.DEAD


def test_actions_do_nothing_on_get(browser: Client, event: Event) -> None:
    for model, row, button in (("destination", event.subscription.destination, "pause"), ("event", event, "redeliver")):
        browser.get(f"/admin/callbacks/{model}/{row.pk}/{button}/?_form_submitted=True")
    assert not Destination.objects.get().paused
    assert Event.objects.get().state == Event.State.DEAD
