"""Whatever happens to streams and hosts: once all is well, every event arrives or is dead, in order and accounted for."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callbacks import outbox
from callbacks.delivery import attempt_results, delivery_attempt, destination_queue, due_streams, stream_delivery, thread_limiter
from callbacks.delivery.thread_limiter import Places
from callbacks.models import Attempt, Destination, Event, Subscription
from callbacks.operators import redelivery
from callbacks.rules.outcome import Outcome
from tests.helpers.api_calls import configured
from tests.helpers.delivery_fixtures import time_passes

pytestmark = pytest.mark.django_db(transaction=True)

STREAMS, HOSTS, AT_ONCE, UNPROVEN = 4, 2, 2, 2
PENDING, DEAD = Event.State.PENDING, Event.State.DEAD

Step = tuple[Any, ...]


def steps(answers: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Step]]:
    stream, host = st.integers(0, STREAMS - 1), st.integers(0, HOSTS - 1)
    types = st.sampled_from(["orchestrator.job.start", "orchestrator.job.log"])
    return st.lists(
        st.one_of(
            st.tuples(st.just("publish"), stream, st.lists(types, min_size=1, max_size=3)),
            st.tuples(st.just("message"), stream, st.lists(answers, max_size=3)),
            st.tuples(st.just("relay"), st.lists(answers, max_size=6)),
            st.tuples(st.just("time"), st.sampled_from([1, 6, 30, 50, 600, 7200, 86400])),
            st.tuples(st.sampled_from(["pause", "resume", "reset"]), host),
            st.tuples(st.just("redeliver"), stream, st.integers(1, 4)),
            st.tuples(st.just("redeliver_dead"), stream),
            st.tuples(st.just("redeliver_dead_of"), host, st.sampled_from([1, 3600, 10**6])),
            st.tuples(st.just("abandon")),
        ),
        max_size=8,
    )


KINDS = st.sampled_from([200, "slow", 404, 410, 429, 500, 503, None, "killed while it sends", "killed before it writes down"])
SIMPLE = st.tuples(KINDS, st.just([]))
ANSWERS = st.tuples(KINDS, steps(SIMPLE))  # what happens while it is waited for


class World:
    """Some streams to some hosts, and a network that does what a test says."""

    def __init__(self) -> None:
        for model in (Attempt, Event, Subscription, Destination):
            model.objects.all().delete()
        self.streams = [uuid.uuid4() for _ in range(STREAMS)]
        for number, stream in enumerate(self.streams):
            outbox.subscribe(stream, f"job-{number}", f"http://host-{number % HOSTS}.example/")
        self.hosts = list(Destination.objects.order_by("pk").values_list("pk", flat=True))
        self.answers: list[Any] = []  # to what is sent next; 200 to the rest
        self.sent: list[str] = []  # ids of events
        self.dies = False

    # -- the network -------------------------------------------------------------------------------
    def send(self, _: str, headers: dict[str, str], body: bytes) -> Outcome:
        event = Event.objects.get(pk=headers["Ce-Id"])
        assert bytes(event.body) == body
        self.check(event)
        self.sent.append(str(event.pk))
        began = datetime.now(UTC)
        kind, meanwhile = self.answers.pop(0) if self.answers else (200, [])
        self.take(meanwhile)
        if kind == "killed while it sends":
            raise SystemExit
        self.dies = kind == "killed before it writes down"
        status = 200 if self.dies or kind == "slow" else kind
        latency = 14_000 if kind == "slow" else 1
        return Outcome(time=began, latency_ms=latency, status=status, error="", retry_after=300.0 if kind in (429, 503) else 0.0)

    def check(self, event: Event) -> None:
        """What holds whenever something is sent."""
        earlier = event.subscription.events.filter(state=PENDING, sequence__lt=event.sequence)
        assert not earlier.exists(), "an earlier event is still to be sent"
        assert event.state == PENDING
        assert event.expires_at > timezone.now() - timedelta(seconds=1), "it is too old"
        destination = event.subscription.destination
        assert not destination.paused
        if destination.open_until is not None:
            assert destination.open_until <= timezone.now(), "its breaker is open"
            assert destination.probe_token == event.subscription.lease_token, "it is not the probe"
        under_way = destination.subscriptions.filter(lease_until__gt=Now()).count()
        assert under_way <= AT_ONCE

    def record(self, *args: Any, **options: Any) -> Any:
        if self.dies:
            self.dies = False
            raise SystemExit
        return RECORD(*args, **options)

    # -- what happens -------------------------------------------------------------------------------
    def take(self, steps: list[Step]) -> None:
        for name, *arguments in steps:
            getattr(self, name)(*arguments)

    def publish(self, number: int, types: list[str]) -> None:
        with transaction.atomic():
            for type_ in types:
                outbox.publish(self.streams[number], type_, "orchestrator/service", {"jobId": "j"})

    def drain(self, identity: int) -> None:
        with suppress(SystemExit):
            stream_delivery.drain(identity)

    def message(self, number: int, answers: list[Any]) -> None:
        self.answers = answers + self.answers
        self.drain(Subscription.objects.get(stream=self.streams[number]).pk)

    def relay(self, answers: list[Any]) -> None:
        self.answers = answers + self.answers
        destination_queue.mark_waiting()
        destination_queue.wake_available()
        redelivery.work_off()
        for identity in due_streams.due(100):
            self.drain(identity)

    def time(self, seconds: float) -> None:
        time_passes(seconds)

    def pause(self, number: int) -> None:
        destination_queue.pause(self.hosts[number])

    def resume(self, number: int) -> None:
        destination_queue.resume(self.hosts[number])

    def reset(self, number: int) -> None:
        destination_queue.reset(self.hosts[number])

    def redeliver(self, number: int, sequence: int) -> None:
        event = Event.objects.filter(subscription__stream=self.streams[number], sequence=sequence).first()
        assert redelivery.redeliver(self.streams[number], event.pk if event else uuid.uuid4()) == (event is not None)

    def redeliver_dead(self, number: int) -> None:
        redelivery.redeliver_dead(self.streams[number])

    def redeliver_dead_of(self, number: int, ago: float) -> None:
        redelivery.redeliver_dead_of(self.hosts[number], timezone.now() - timedelta(seconds=ago))

    def abandon(self) -> None:
        stream_delivery.let_go()
        stream_delivery.abandon()
        stream_delivery.start()

    # -- the end --------------------------------------------------------------------------------------
    def get_well(self) -> None:
        """All hosts answer, nobody dies, and time goes on."""
        self.answers, self.dies = [], False
        for number in range(HOSTS):
            self.resume(number)
        Event.objects.filter(state=PENDING).update(expires_at=timezone.now() + timedelta(days=1))
        for _ in range(40):
            self.relay([])
            if not (Event.objects.filter(state=PENDING) or Destination.objects.filter(revive_until__isnull=False)):
                break
            time_passes(600)


RECORD = stream_delivery._record


@contextmanager
def world() -> Iterator[World]:
    world = World()
    places = Places(untrusted=UNPROVEN, slow=1)
    with (
        patch.object(delivery_attempt, "send", world.send),
        patch.object(stream_delivery, "_record", world.record),
        patch.object(thread_limiter, "places", places),
        patch.object(stream_delivery, "_MOST_ATTEMPTS", 2),
        patch.object(attempt_results, "_EXPIRED_BATCH", 2),
        configured(deliveries_per_host=AT_ONCE),
    ):
        stream_delivery.start()
        yield world
    assert places.take(0, slow=True), "a place was not given back"
    assert all(places.take(0, slow=False) for _ in range(UNPROVEN - 1)), "a place was not given back"


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(steps(ANSWERS))
def test_whatever_happens_everything_arrives_or_is_dead_once_all_is_well(happening: list[Step]) -> None:
    with world() as here:
        # Given anything that may happen to streams with events
        for number in range(STREAMS):
            here.publish(number, ["orchestrator.job.start", "orchestrator.job.log"])
        here.take(happening)
        dead = set(Event.objects.filter(state=DEAD).values_list("pk", flat=True))

        # When all is well again
        here.get_well()

        # I expect nothing to be left, and nothing to have died since
        assert not Event.objects.filter(state=PENDING).exists()
        assert set(Event.objects.filter(state=DEAD).values_list("pk", flat=True)) <= dead
        assert not Subscription.objects.exclude(next_attempt_at=None, lease_token=None, waiting_since=None).exists()

        # and every attempt to be accounted for
        kept = sorted(str(identity) for identity in Attempt.objects.values_list("event", flat=True))
        assert kept == sorted(here.sent)
        for event in Event.objects.all():
            assert event.state == DEAD or event.attempts.filter(status=200).exists()
            assert event.tries + event.silences <= event.attempts.count()
            assert event.state != DEAD or event.tries or (event.settled_at and event.settled_at >= event.expires_at)
