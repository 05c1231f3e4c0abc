"""Operators see what was sent and how it went, and no secret."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import transaction
from django.test import Client, RequestFactory
from django.utils import timezone

from callbacks import outbox
from callbacks.models import Attempt, Destination, Event, Subscription
from callbacks.operators import redelivery

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(rf: RequestFactory) -> Any:
    """A request of somebody who may do everything."""
    request = rf.get("/")
    request.user = User.objects.create_superuser("operator")
    return request


@pytest.mark.parametrize("model", [Destination, Subscription, Event])
def test_nothing_secret_is_shown_and_nothing_can_be_changed(operator: Any, model: Any) -> None:
    # Given a subscription with secrets, and an event
    outbox.subscribe(
        uuid.uuid4(), "job-1", "https://u:s3cr3t@h.example/p?t=s3cr3t", keys=("s3cr3t", "s3cr3t2"), headers={"X": "s3cr3t"}
    )
    with transaction.atomic():
        outbox.publish(Subscription.objects.get().stream, "orchestrator.job.start", "s", {})
    page = admin.site.get_model_admin(model)
    row = model.objects.get()

    # When its pages are shown
    detail = page.changeform_view(operator, str(row.pk)).render().content.decode()
    listing = page.changelist_view(operator).render().content.decode()

    # I expect no secret in them, and no way to change anything
    assert ("h.example" if model is Destination else "job-1") in detail
    assert "s3cr3t" not in detail + listing
    assert not page.has_add_permission(operator)
    assert not page.has_change_permission(operator, row)
    assert not page.has_delete_permission(operator, row)


# -- what an operator may do -----------------------------------------------------------------------------


@pytest.fixture
def event() -> Event:
    """One that died, of a stream at rest."""
    stream = uuid.uuid4()
    outbox.subscribe(stream, "job-1", "http://h.example/")
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
    """Open a button's dialog on a row's page, and say yes."""
    address = f"/admin/callbacks/{model}/{row.pk}/{button}/"
    assert b"<form" in browser.get(address).content
    return browser.post(address, {"_form_submitted": "True", **fields})


def choose(browser: Client, model: str, action: str, *rows: Any) -> None:
    """Mark rows of a list, and run an action."""
    marked = {"action": action, "_selected_action": [str(row.pk) for row in rows]}
    assert browser.post(f"/admin/callbacks/{model}/", marked).status_code == 302


def test_attempts_are_shown_with_their_event(browser: Client, event: Event) -> None:
    Attempt.objects.create(event=event, time=timezone.now(), latency_ms=17, status=503, error="answered 503", answer="sorry")
    page = browser.get(f"/admin/callbacks/event/{event.pk}/change/").content.decode()
    for shown in ("503", "17", "answered 503", "sorry", "dead"):
        assert shown in page


def test_an_event_is_sent_again(browser: Client, event: Event) -> None:
    answer = press(browser, "event", event, "redeliver")
    assert answer["HX-Redirect"] == f"/admin/callbacks/event/{event.pk}/change/"
    assert Event.objects.get().state == Event.State.PENDING


def test_chosen_events_are_sent_again(browser: Client, event: Event) -> None:
    choose(browser, "event", "redeliver_selected", event)
    assert Event.objects.get().state == Event.State.PENDING


def test_all_dead_events_of_a_job_are_sent_again(browser: Client, event: Event) -> None:
    press(browser, "subscription", event.subscription, "redeliver_dead")
    assert Event.objects.get().state == Event.State.PENDING


def test_what_died_at_a_host_since_a_time_is_sent_again(browser: Client, event: Event) -> None:
    # Given the dialog's time, two hours ago
    destination = event.subscription.destination
    since = timezone.now() - timedelta(hours=2)

    # When it is not filled in, I expect it to ask again
    answer = press(browser, "destination", destination, "redeliver", since_0="", since_1="")
    assert b"required" in answer.content

    # and when it is, the event to be sent again
    press(browser, "destination", destination, "redeliver", since_0=f"{since:%Y-%m-%d}", since_1=f"{since:%H:%M:%S}")
    redelivery.process_requests()
    assert Event.objects.get().state == Event.State.PENDING


def test_a_host_is_paused_resumed_and_reset(browser: Client, event: Event) -> None:
    destination = event.subscription.destination

    def row() -> Destination:
        return Destination.objects.get()

    # By the buttons of its page
    press(browser, "destination", destination, "pause")
    assert row().paused
    press(browser, "destination", destination, "resume")
    assert not row().paused
    Destination.objects.update(failures=5, open_until=timezone.now() + timedelta(minutes=1))
    press(browser, "destination", destination, "reset")
    assert (row().failures, row().open_until) == (0, None)

    # and by the list's actions
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
def test_who_may_only_look_does_nothing(client: Client, event: Event, model: str, button: str) -> None:
    # Given somebody who may see everything
    user = User.objects.create_user("looker", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client.force_login(user)
    row = event if model == "event" else event.subscription.destination

    # I expect the pages, and no button that works
    assert client.get(f"/admin/callbacks/{model}/{row.pk}/change/").status_code == 200
    assert client.post(f"/admin/callbacks/{model}/{row.pk}/{button}/", {"_form_submitted": "True"}).status_code == 403
    client.post(f"/admin/callbacks/{model}/", {"action": f"{button}_selected", "_selected_action": [str(row.pk)]})
    assert not Destination.objects.filter(paused=True).exists()
    assert Event.objects.get().state == Event.State.DEAD


def test_nothing_is_done_by_a_link(browser: Client, event: Event) -> None:
    for model, row, button in (("destination", event.subscription.destination, "pause"), ("event", event, "redeliver")):
        browser.get(f"/admin/callbacks/{model}/{row.pk}/{button}/?_form_submitted=True")
    assert not Destination.objects.get().paused
    assert Event.objects.get().state == Event.State.DEAD
