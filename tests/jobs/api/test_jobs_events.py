"""GET /v1/jobs/<id>/events, and redelivery."""

import uuid
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.utils import timezone

from callbacks.delivery import due_streams
from callbacks.models import Attempt, Event, Subscription
from callbacks.operators import event_history
from jobs import events
from jobs.log_lines import Line, group
from jobs.models import Job
from jobs.spec import CallbackSpec
from tests.helpers.api_calls import expect_error
from tests.helpers.factories import CALLBACK, make_job

pytestmark = pytest.mark.django_db
PENDING, DELIVERED, DEAD = Event.State.PENDING, Event.State.DELIVERED, Event.State.DEAD


@pytest.fixture
def job() -> Job:
    """Return a job with five events."""
    job = make_job(id="a", callback=CALLBACK)
    with transaction.atomic():
        events.started(job)
        for number in range(3):
            events.logged(job, group([Line("stdout", "2026-01-01T00:00:00Z", str(number))]))
        events.completed(job)
    return job


def rows(job: Job) -> list[Event]:
    return list(Event.objects.filter(subscription__stream=job.uuid).order_by("sequence"))


def settle(event: Event, state: Event.State) -> None:
    """Set the state of an event whose deliveries have ended."""
    Event.objects.filter(pk=event.pk).update(state=state, tries=10, settled_at=timezone.now())
    Subscription.objects.update(next_attempt_at=None)


def listed(client: Client, query: str = "") -> list[dict[str, Any]]:
    answer = client.get(f"/v1/jobs/a/events?{query}")
    assert answer.status_code == 200, answer.content
    found: list[dict[str, Any]] = answer.json()["events"]
    return found


def test_a_job_without_a_callback_has_no_events(client: Client) -> None:
    make_job(id="a", callback=None)
    assert client.get("/v1/jobs/a/events").json() == {"events": []}


def test_events_are_listed_in_order_with_their_attempts(client: Client, job: Job) -> None:
    # Given an event that was tried twice, and others that were not
    first = rows(job)[0]
    Attempt.objects.create(event=first, time=timezone.now(), latency_ms=5000, error="no connection")
    Attempt.objects.create(event=first, time=timezone.now(), latency_ms=7, status=500, error="answered 500", answer="no")
    Event.objects.filter(pk=first.pk).update(next_attempt_at=timezone.now())

    # When they are listed
    found = listed(client)

    # I expect events and attempts in order, without the values that are not known
    assert [event["jobsequence"] for event in found] == [1, 2, 3, 4, 5]
    assert [event["type"] for event in found][::4] == ["orchestrator.job.start", "orchestrator.job.complete"]
    assert found[0]["id"] == str(first.pk)
    assert found[0]["time"] == first.time
    assert "nextAttemptAt" in found[0]
    silent, refused = found[0]["attempts"]
    assert (silent.keys(), silent["error"]) == ({"time", "latencyMs", "error"}, "no connection")
    assert (refused["status"], refused["latencyMs"], refused["answer"]) == (500, 7, "no")
    assert found[1].keys() == {"id", "type", "time", "jobsequence", "state", "attempts"}


@pytest.mark.parametrize("limit", [1, 2, 4, 5, 6])
def test_the_pages_together_have_all_events(client: Client, job: Job, limit: int) -> None:
    found, cursor = [], ""
    while True:
        page = client.get(f"/v1/jobs/a/events?limit={limit}{cursor}").json()
        assert 1 <= len(page["events"]) <= limit
        found += [event["jobsequence"] for event in page["events"]]
        if "nextCursor" not in page:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert found == [1, 2, 3, 4, 5]


def test_a_page_is_short_if_answers_are_long(client: Client, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given answers so long that two do not fit on a page
    monkeypatch.setattr(event_history, "_PAGE_LENGTH", 1000)
    for event in rows(job):
        Attempt.objects.create(event=event, time=timezone.now(), latency_ms=1, status=200, answer="x" * 800)

    # I expect a page with one event, and a cursor for the rest
    page = client.get("/v1/jobs/a/events").json()
    assert [event["jobsequence"] for event in page["events"]] == [1]
    assert page["nextCursor"] == "1"


def test_events_can_be_filtered_by_state(client: Client, job: Job) -> None:
    settle(rows(job)[1], DEAD)
    settle(rows(job)[0], DELIVERED)
    assert [event["jobsequence"] for event in listed(client, "state=dead")] == [2]
    assert [event["jobsequence"] for event in listed(client, "state=delivered")] == [1]
    assert [event["jobsequence"] for event in listed(client, "state=pending")] == [3, 4, 5]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "cursor=x", "cursor=-1", f"cursor={2**70}", "state=lost", "x=1"])
def test_invalid_parameters_are_refused(client: Client, job: Job, query: str) -> None:
    expect_error(client.get(f"/v1/jobs/a/events?{query}"), 400, query.partition("=")[0])


@pytest.mark.parametrize("state", [DEAD, DELIVERED])
def test_a_redelivered_event_is_pending_with_all_attempts(client: Client, job: Job, state: Event.State) -> None:
    # Given an event whose deliveries have ended
    event = rows(job)[2]
    settle(event, state)
    frozen = bytes(event.body)

    # When a client requests its redelivery
    answer = client.post(f"/v1/jobs/a/events/{event.pk}/redeliver")

    # I expect it to be pending and due, with all its attempts left and the same bytes
    assert (answer.status_code, answer.json()) == (202, {"redelivered": 1})
    event.refresh_from_db()
    assert (event.state, event.tries, event.settled_at, bytes(event.body)) == (PENDING, 0, None, frozen)
    assert due_streams.due(10) == [event.subscription_id]


def test_all_dead_events_of_a_job_can_be_redelivered(client: Client, job: Job) -> None:
    # Given two dead events of the job, and one of another job
    for event in rows(job)[1:3]:
        settle(event, DEAD)
    other = make_job(id="b", callback=CALLBACK)
    with transaction.atomic():
        events.started(other)
    settle(rows(other)[0], DEAD)

    # When a client requests the redelivery of those of the first job
    answer = client.post("/v1/jobs/a/events/redeliver")

    # I expect these two to be pending, and the other one dead
    assert (answer.status_code, answer.json()) == (202, {"redelivered": 2})
    assert {event.state for event in rows(job)} == {PENDING}
    assert rows(other)[0].state == DEAD
    assert client.post("/v1/jobs/a/events/redeliver").json() == {"redelivered": 0}


def test_unknown_jobs_and_events_are_404(client: Client, job: Job) -> None:
    other = make_job(id="b", callback=CALLBACK)
    with transaction.atomic():
        events.started(other)
    strange = rows(other)[0].pk
    expect_error(client.get("/v1/jobs/nobody/events"), 404)
    expect_error(client.post("/v1/jobs/nobody/events/redeliver"), 404)
    expect_error(client.post(f"/v1/jobs/nobody/events/{strange}/redeliver"), 404)
    for identity in (strange, uuid.uuid4(), "x"):
        expect_error(client.post(f"/v1/jobs/a/events/{identity}/redeliver"), 404)
    assert Event.objects.filter(pk=strange, state=PENDING).exists()


def test_no_secret_is_shown(client: Client) -> None:
    # Given an unreachable callback with secrets in its URL, key and headers
    job = make_job(
        id="a", callback=CallbackSpec(url="http://u:s3cr3t@127.0.0.1:1/?t=s3cr3t", keys=("s3cr3t",), headers={"X": "s3cr3t"})
    )
    with transaction.atomic():
        events.started(job)
    Attempt.objects.create(event=rows(job)[0], time=timezone.now(), latency_ms=1, error="no connection to 127.0.0.1")

    # I expect the events without these secrets
    assert "s3cr3t" not in client.get("/v1/jobs/a/events").content.decode()
