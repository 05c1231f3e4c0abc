"""/v1/destinations: the origins that events are sent to, and what an operator can do about one."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.utils import timezone

from callbacks import outbox
from callbacks.models import Destination, Event, Subscription
from callbacks.operators import redelivery
from tests.helpers import factories
from tests.helpers.api_calls import configured, expect_error

pytestmark = pytest.mark.django_db


def subscribe(url: str) -> Destination:
    """Create a stream to that URL with an event, and return its destination."""
    stream = uuid.uuid4()
    factories.subscribe(stream, "job", url)
    with transaction.atomic():
        outbox.publish(stream, "orchestrator.job.start", "orchestrator/service", {})
    return Subscription.objects.get(stream=stream).destination


def act(client: Client, destination: Destination, action: str, status: int = 200) -> dict[str, Any]:
    answer = client.post(f"/v1/destinations/{destination.pk}/{action}")
    assert answer.status_code == status, answer.content
    body: dict[str, Any] = answer.json()
    return body


def test_without_destinations_the_list_is_empty(client: Client) -> None:
    assert client.get("/v1/destinations").json() == {"destinations": []}


def test_each_origin_is_one_destination_however_it_is_spelled(client: Client) -> None:
    # Given callbacks at two hosts
    for url in ("https://A.example/x?t=s3cr3t", "https://u:s3cr3t@a.example:443/y", "http://a.example/"):
        subscribe(url)

    # I expect two destinations, and no secret
    answer = client.get("/v1/destinations")
    assert [found["origin"] for found in answer.json()["destinations"]] == ["https://a.example:443", "http://a.example:80"]
    assert "s3cr3t" not in answer.content.decode()


def test_destinations_are_paged_and_filtered(client: Client) -> None:
    made = [subscribe(f"http://h{number}.example/") for number in range(3)]
    Destination.objects.filter(pk=made[1].pk).update(paused=True)

    first = client.get("/v1/destinations?limit=2").json()
    second = client.get(f"/v1/destinations?limit=2&cursor={first['nextCursor']}").json()
    assert [found["id"] for page in (first, second) for found in page["destinations"]] == [one.pk for one in made]
    assert "nextCursor" not in second

    def ids(query: str) -> list[int]:
        return [found["id"] for found in client.get(f"/v1/destinations?{query}").json()["destinations"]]

    assert ids("origin=http://H2.example/any%3Fpath") == [made[2].pk]
    assert ids("origin=http://nobody.example") == []
    assert ids("paused=true") == [made[1].pk]
    assert ids("paused=false") == [made[0].pk, made[2].pk]


@pytest.mark.parametrize("query", ["limit=0", "cursor=x", "origin=ftp://x", "origin=", "paused=1", "x=1"])
def test_invalid_parameters_are_refused(client: Client, query: str) -> None:
    expect_error(client.get(f"/v1/destinations?{query}"), 400, query.partition("=")[0])


def test_an_open_breaker_and_waiting_streams_are_shown(client: Client) -> None:
    # Given a destination with an open breaker, for which a stream waits
    destination = subscribe("http://h.example/")
    now = timezone.now()
    Destination.objects.filter(pk=destination.pk).update(failures=5, openings=1, open_until=now + timedelta(seconds=30))
    Subscription.objects.update(waiting_since=now)

    # I expect all of that to be shown
    found = client.get(f"/v1/destinations/{destination.pk}").json()
    assert (found["breaker"], found["failures"], found["paused"]) == ("open", 5, False)
    assert (found["underWay"], found["waiting"], found["atOnce"]) == (0, 1, 1)
    assert "openUntil" in found

    # and, once the time is up, the breaker to be half open
    Destination.objects.update(open_until=now)
    assert client.get(f"/v1/destinations/{destination.pk}").json()["breaker"] == "half_open"


def test_a_destination_can_be_paused_and_resumed(client: Client) -> None:
    destination = subscribe("http://h.example/")
    assert act(client, destination, "pause")["paused"] is True
    assert act(client, destination, "pause")["paused"] is True
    assert act(client, destination, "resume")["paused"] is False


def test_a_destination_can_be_reset(client: Client) -> None:
    # Given a destination with an open breaker, and an event that it left unanswered
    destination = subscribe("http://h.example/")
    later = timezone.now() + timedelta(minutes=9)
    Destination.objects.filter(pk=destination.pk).update(failures=9, openings=3, open_until=later, throttled_until=later)
    Event.objects.update(silences=3, next_attempt_at=later)
    Subscription.objects.update(next_attempt_at=later)

    # When an operator resets it
    found = act(client, destination, "reset")

    # I expect its breaker to be closed, and the event to be due
    assert (found["breaker"], found["failures"]) == ("closed", 0)
    assert not {"openUntil", "throttledUntil"} & found.keys()
    assert Event.objects.get().next_attempt_at is None
    assert Subscription.objects.get().next_attempt_at <= timezone.now()  # type: ignore[operator]


def test_dead_events_since_a_time_are_redelivered(client: Client) -> None:
    # Given events that died at two hosts, one of them long ago
    recent, old, elsewhere = (subscribe(f"http://{host}.example/") for host in ("h", "h", "other"))
    for destination, event, hours in zip((recent, old, elsewhere), Event.objects.order_by("created_at"), (1, 5, 1), strict=True):
        assert event.subscription.destination == destination
        died = timezone.now() - timedelta(hours=hours)
        Event.objects.filter(pk=event.pk).update(state=Event.State.DEAD, settled_at=died)

    # When an operator requests the redelivery of those of the last two hours at one host
    since = (timezone.now() - timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = act(client, recent, f"redeliver?since={since}", 202)
    assert found["redelivering"]["since"].startswith(since[:-1])
    while Destination.objects.filter(revive_until__isnull=False).exists():
        redelivery.process_requests()

    # I expect that event to be pending, and the request to be completed
    assert [event.state for event in Event.objects.order_by("created_at")] == ["pending", "dead", "dead"]
    assert "redelivering" not in client.get(f"/v1/destinations/{recent.pk}").json()


@pytest.mark.parametrize("since", ["", "?since=yesterday", "?since=2026-01-01T00:00:00", "?since=2026-01-01T00:00:00Z&x=1"])
def test_since_must_be_an_rfc_3339_time(client: Client, since: str) -> None:
    destination = subscribe("http://h.example/")
    expect_error(client.post(f"/v1/destinations/{destination.pk}/redeliver{since}"), 400, "x" if "x=1" in since else "since")


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00"])
def test_the_first_and_last_times_are_accepted(client: Client, since: str) -> None:
    act(client, subscribe("http://h.example/"), f"redeliver?since={since}", 202)


@pytest.mark.parametrize("identity", [0, 10**6, 10**30, "x"])
def test_unknown_destinations_are_404(client: Client, identity: int | str) -> None:
    expect_error(client.get(f"/v1/destinations/{identity}"), 404)
    for action in ("pause", "resume", "reset", "redeliver?since=2026-01-01T00:00:00Z"):
        expect_error(client.post(f"/v1/destinations/{identity}/{action}"), 404)


def test_destinations_need_a_key(client: Client) -> None:
    with configured(api_auth_required=True):
        expect_error(client.get("/v1/destinations"), 401)
        expect_error(client.post("/v1/destinations/1/pause"), 401)
