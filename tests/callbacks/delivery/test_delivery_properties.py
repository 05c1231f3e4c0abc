"""Whatever happens, every event is delivered or dead in the end, in order, with all its attempts stored."""

import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callbacks import outbox
from callbacks.delivery import attempt_results, destination_queue, due_streams, run_sender
from callbacks.delivery.stream_delivery import Deliverer
from callbacks.delivery.thread_limiter import ThreadLimiter
from callbacks.models import Attempt, Destination, Event, Subscription
from callbacks.operators import destinations, redelivery
from callbacks.rules.outcome import Outcome
from orchestrator_site.base.db import transactions
from orchestrator_site.base.intervals import DeliveryIntervals
from tests.helpers import factories
from tests.helpers.api_calls import configured
from tests.helpers.delivery_fixtures import deliver, time_passes

pytestmark = pytest.mark.django_db(transaction=True)

STREAMS, HOSTS, MAX_IN_FLIGHT, RESTRICTED = 4, 2, 2, 2
PENDING, DEAD = Event.State.PENDING, Event.State.DEAD

Step = tuple[Any, ...]


def steps(answers: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Step]]:
    """Calls of the methods of `World`: each a name and arguments."""
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
            st.tuples(st.just("request_redelivery"), host, st.sampled_from([1, 3600, 10**6])),
            st.tuples(st.just("restart"), st.booleans()),
        ),
        max_size=8,
    )


KINDS = st.sampled_from([200, "slow", 404, 410, 429, 500, 503, None, "killed"])  # of the process, before it records
SIMPLE = st.tuples(KINDS, st.just([]))
ANSWERS = st.tuples(KINDS, steps(SIMPLE))  # an answer, and what happens before it


class World:
    """Some streams to some hosts, one process that delivers, and a network that does what a test says."""

    def __init__(self) -> None:
        for model in (Attempt, Event, Subscription, Destination):
            model.objects.all().delete()
        self.streams = [uuid.uuid4() for _ in range(STREAMS)]
        for number, stream in enumerate(self.streams):
            factories.subscribe(stream, f"job-{number}", f"http://host-{number % HOSTS}.example/")
        self.hosts = list(Destination.objects.order_by("pk").values_list("pk", flat=True))
        self.answers: list[Any] = []  # to the next attempts; all others are answered 200
        self.sent: list[str] = []  # ids of events
        self.sent_first: list[str] = []  # those that were the first of a run, or alone
        self.accepted: dict[int, int] = {}  # the number of the event of each stream that was accepted last
        self.violations: list[AssertionError] = []
        self.passed = 0.0  # seconds that were made to pass
        self.limiters: list[ThreadLimiter] = []
        self.start_process()

    def start_process(self) -> None:
        intervals = DeliveryIntervals()
        self.limiters.append(ThreadLimiter(intervals, restricted=RESTRICTED, slow=1))
        self.deliverer = Deliverer(intervals, threads=self.limiters[-1], max_attempts=2, send=self.send)

    # -- the network -------------------------------------------------------------------------------
    def send(self, _: str, headers: Mapping[str, str], body: bytes, __: DeliveryIntervals) -> Outcome:
        event = Event.objects.get(pk=headers["Ce-Id"])
        assert bytes(event.body) == body
        try:
            self.check(event)
        except AssertionError as violation:
            self.violations.append(violation)
        self.sent.append(str(event.pk))
        began = datetime.now(UTC)
        kind, before = self.answers.pop(0) if self.answers else (200, [])
        self.run(before)
        if kind == "killed":
            raise SystemExit
        self.accepted[event.subscription_id] = event.sequence if kind in (200, "slow") else 0
        status, latency = (200, 14_000) if kind == "slow" else (kind, 1)
        return Outcome(time=began, latency_ms=latency, status=status, error="", retry_after=300.0 if kind in (429, 503) else 0.0)

    def check(self, event: Event) -> None:
        """Check what holds whenever an event is sent."""
        if event.subscription.sending != event.pk:
            assert event.state == PENDING
            assert self.accepted[event.subscription_id] == event.sequence - 1, "the one before it was not accepted"
            return
        self.sent_first.append(str(event.pk))
        earlier = event.subscription.events.filter(state=PENDING, sequence__lt=event.sequence)
        assert not earlier.exists(), "an earlier event is pending"
        assert event.state == PENDING
        assert event.expires_at > timezone.now() - timedelta(seconds=1), "it has expired"
        destination = event.subscription.destination
        assert not destination.paused
        if destination.open_until is not None:
            assert destination.open_until <= timezone.now(), "its breaker is open"
            assert destination.probe_token == event.subscription.lease_token, "it is not the probe"
        in_flight = destination.subscriptions.filter(lease_until__gt=Now()).count()
        assert in_flight <= MAX_IN_FLIGHT

    # -- what happens -------------------------------------------------------------------------------
    def run(self, steps: list[Step]) -> None:
        for name, *arguments in steps:
            getattr(self, name)(*arguments)

    def publish(self, number: int, types: list[str]) -> None:
        with transaction.atomic():
            for type_ in types:
                outbox.publish(self.streams[number], type_, "orchestrator/service", {"jobId": "j"})

    def deliver(self, identity: int) -> None:
        with suppress(SystemExit):
            deliver(self.deliverer, identity)

    def message(self, number: int, answers: list[Any]) -> None:
        self.answers = answers + self.answers
        self.deliver(Subscription.objects.get(stream=self.streams[number]).pk)

    def relay(self, answers: list[Any]) -> None:
        self.answers = answers + self.answers
        destination_queue.wake_unmarked()
        destination_queue.wake_available()
        redelivery.process_requests()
        for identity in due_streams.due(100):
            self.deliver(identity)

    def time(self, seconds: float) -> None:
        time_passes(seconds)
        self.passed += seconds

    def pause(self, number: int) -> None:
        destinations.pause(self.hosts[number])

    def resume(self, number: int) -> None:
        destinations.resume(self.hosts[number])

    def reset(self, number: int) -> None:
        destinations.reset(self.hosts[number])

    def redeliver(self, number: int, sequence: int) -> None:
        event = Event.objects.filter(subscription__stream=self.streams[number], sequence=sequence).first()
        assert redelivery.redeliver(self.streams[number], event.pk if event else uuid.uuid4()) == (event is not None)

    def redeliver_dead(self, number: int) -> None:
        redelivery.redeliver_dead(self.streams[number])

    def request_redelivery(self, number: int, ago: float) -> None:
        redelivery.request_redelivery(self.hosts[number], timezone.now() - timedelta(seconds=ago))

    def restart(self, waits_for_answers: bool) -> None:
        """Replace the process that delivers, while what it has in flight goes on."""
        self.deliverer.stop()
        if not waits_for_answers:
            self.deliverer.release_leases()
        self.start_process()

    # -- the end --------------------------------------------------------------------------------------
    def recover(self) -> None:
        """Let time pass while all hosts answer and no process dies."""
        self.answers = []
        for number in range(HOSTS):
            self.resume(number)
        Event.objects.filter(state=PENDING).update(expires_at=timezone.now() + timedelta(days=1))
        for _ in range(40):
            self.relay([])
            if not (Event.objects.filter(state=PENDING) or Destination.objects.filter(revive_until__isnull=False)):
                break
            time_passes(600)


@contextmanager
def world() -> Iterator[World]:
    with (
        patch.object(attempt_results, "_EXPIRED_BATCH", 2),
        patch.object(transactions, "release_connection"),  # a third of the time would go into opening connections
        configured(deliveries_per_host=MAX_IN_FLIGHT),
    ):
        world = World()
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + world.passed)
        with patch.object(run_sender, "time", clock):
            yield world
    for limiter in world.limiters:
        for number in range(RESTRICTED):
            assert limiter.acquire(uuid.uuid4(), Destination(pk=-number, slowness=not number)), "a thread was not released"


@settings(max_examples=35, suppress_health_check=[HealthCheck.too_slow])
@given(steps(ANSWERS))
def test_every_event_is_delivered_or_dead_once_all_is_well(happening: list[Step]) -> None:
    with world() as here:
        # Given anything that may happen to streams with events
        for number in range(STREAMS):
            here.publish(number, ["orchestrator.job.start", "orchestrator.job.log"])
        here.run(happening)
        dead = set(Event.objects.filter(state=DEAD).values_list("pk", flat=True))

        # When all destinations are healthy again
        here.recover()

        # I expect nothing to be left, and nothing to have died since
        assert not Event.objects.filter(state=PENDING).exists()
        assert set(Event.objects.filter(state=DEAD).values_list("pk", flat=True)) <= dead
        assert not Subscription.objects.exclude(next_attempt_at=None, lease_token=None, waiting_since=None).exists()

        # and every attempt to be stored, except those of the further events of a run whose process was killed
        stored = Counter(str(identity) for identity in Attempt.objects.values_list("event", flat=True))
        assert Counter(here.sent_first) <= stored <= Counter(here.sent)
        assert not here.violations
        for event in Event.objects.all():
            assert event.state == DEAD or event.attempts.filter(status=200).exists()
            assert event.tries + event.silences <= event.attempts.count()
            assert event.state != DEAD or event.tries or (event.settled_at and event.settled_at >= event.expires_at)
