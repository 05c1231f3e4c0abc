"""What operators do is recorded with their names: on the page of recent actions, and in the service's log."""

import logging
import uuid

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client

from callbacks import outbox
from callbacks.models import Destination, Event
from jobs.models import Node
from tests.helpers import factories
from tests.helpers.factories import make_node

pytestmark = pytest.mark.django_db


@pytest.fixture
def browser(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("olga"))
    return client


def press(browser: Client, address: str) -> None:
    assert "HX-Redirect" in browser.post(f"/admin/{address}/", {"_form_submitted": "True"})


def test_a_drain_is_recorded_and_shown(browser: Client, caplog: pytest.LogCaptureFixture) -> None:
    # When an operator drains a node and undoes that
    node = make_node("n1")
    with caplog.at_level(logging.INFO):
        press(browser, f"jobs/node/{node.pk}/drain")
        press(browser, f"jobs/node/{node.pk}/undrain")

    # I expect both on the page, with who did it and a link to the node
    page = browser.get("/admin/admin/logentry/").content.decode()
    for shown in ("olga", "Drained: it takes no new jobs", "Drain undone", f'href="/admin/jobs/node/{node.pk}/change/"'):
        assert shown in page

    # and in the log
    said = [record for record in caplog.records if record.name == "orchestrator_site.base.operator_log"]
    assert [(record.user, record.object) for record in said] == [("olga", "n1")] * 2  # type: ignore[attr-defined]


def test_an_action_is_recorded_before_it_is_done(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a process that is killed during an action
    node = make_node("n1")
    monkeypatch.setattr("jobs.draining.drain", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        press(browser, f"jobs/node/{node.pk}/drain")

    # I expect it to be recorded
    assert LogEntry.objects.get().object_repr == "n1"
    assert not Node.objects.get().drained


def test_actions_on_destinations_and_events_are_recorded(browser: Client) -> None:
    # Given a destination with an event
    stream = uuid.uuid4()
    factories.subscribe(stream, "job-1", "https://u:s3cr3t@h.example/p?t=s3cr3t", keys=("s3cr3t",))
    with transaction.atomic():
        outbox.publish(stream, "orchestrator.job.start", "s", {})
    destination, event = Destination.objects.get(), Event.objects.get()

    # When an operator pauses and resets it, and redelivers
    press(browser, f"callbacks/destination/{destination.pk}/pause")
    browser.post("/admin/callbacks/destination/", {"action": "reset_selected", "_selected_action": [destination.pk]})
    press(browser, f"callbacks/event/{event.pk}/redeliver")
    press(browser, f"callbacks/subscription/{event.subscription.pk}/redeliver_dead")

    # I expect an entry of each, without a secret
    entries = list(LogEntry.objects.order_by("pk").values_list("user__username", "object_repr", "change_message"))
    assert [(user, message) for user, _, message in entries] == [
        ("olga", "Paused"),
        ("olga", "Marked as healthy"),
        ("olga", "Redelivered"),
        ("olga", "Redelivers its dead events"),
    ]
    assert "s3cr3t" not in repr(entries)


def test_nobody_edits_the_record(browser: Client) -> None:
    make_node("n1")
    press(browser, f"jobs/node/{Node.objects.get().pk}/drain")
    entry = LogEntry.objects.get()
    for path in ("add/", f"{entry.pk}/change/", f"{entry.pk}/delete/"):
        assert browser.get(f"/admin/admin/logentry/{path}").status_code in (302, 403)
    browser.post("/admin/admin/logentry/", {"action": "delete_selected", "_selected_action": [entry.pk], "post": "yes"})
    assert LogEntry.objects.get() == entry
