"""Streams, relay and deliverers as a test plays them, with a clock that it turns. The fixtures are there for every test."""

import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from callbacks import delivery_hints, outbox
from callbacks.delivery import delivery_attempt, destination_queue, due_streams, stream_delivery
from callbacks.models import Attempt, Destination, Event, Subscription
from orchestrator_site.base.broker import broker
from tests.helpers.receiver import Answer, Received, Receiver
from tests.helpers.waiting import wait_for

KEY = "the key"
START, LOG, EXIT = "orchestrator.job.start", "orchestrator.job.log", "orchestrator.job.exit"
PENDING, DELIVERED, DEAD = Event.State.PENDING, Event.State.DELIVERED, Event.State.DEAD


@pytest.fixture
def empty_queue() -> Iterator[None]:
    broker.declare_queue(delivery_hints.QUEUE)
    broker.flush_all()
    yield
    broker.flush_all()
    stream_delivery.start()  # a test may have stopped it


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine may hold an answer back for longer than an attempt may take."""
    monkeypatch.setattr(delivery_attempt, "WHOLE_SECONDS", 25.0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt takes half a second at most."""
    monkeypatch.setattr(delivery_attempt, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(delivery_attempt, "WHOLE_SECONDS", 0.5)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


class Stream:
    """A subscription and what a test does with it."""

    def __init__(
        self, url: str, *, keys: Sequence[str] = (KEY,), headers: Mapping[str, str] | None = None, subject: str = "job-1"
    ) -> None:
        self.uuid = uuid.uuid4()
        outbox.subscribe(self.uuid, subject, url, keys=keys, headers=headers)
        self.pk = Subscription.objects.get(stream=self.uuid).pk

    def publish(self, *types: str) -> None:
        with transaction.atomic():
            for type_ in types or (START,):
                outbox.publish(self.uuid, type_, "orchestrator/service", {"jobId": "j", "meta": {}})

    def drain(self) -> None:
        stream_delivery.drain(self.pk)

    def try_now(self, times: int = 1) -> None:
        """As if the time of the next attempt had come, so many times."""
        for _ in range(times):
            Event.objects.filter(subscription=self.pk).update(next_attempt_at=None)
            Destination.objects.filter(open_until__isnull=False).update(open_until=Now())
            Destination.objects.update(throttled_until=None)
            Subscription.objects.filter(pk=self.pk, next_attempt_at__isnull=False).update(next_attempt_at=Now())
            self.drain()

    def age(self, by: timedelta) -> None:
        """As if everything had been published so much earlier."""
        Event.objects.filter(subscription=self.pk).update(created_at=F("created_at") - by, expires_at=F("expires_at") - by)

    def lose_lease(self) -> None:
        """As if the process that holds the lease had died long ago."""
        assert Subscription.objects.filter(pk=self.pk, lease_token__isnull=False).update(lease_until=Now())

    @property
    def row(self) -> Subscription:
        return Subscription.objects.get(pk=self.pk)

    @property
    def events(self) -> list[Event]:
        return list(Event.objects.filter(subscription=self.pk).order_by("sequence"))

    @property
    def states(self) -> list[str]:
        return [event.state for event in self.events]

    @property
    def waits(self) -> float:
        """Seconds until the next attempt."""
        due_at = self.row.next_attempt_at
        assert due_at is not None
        return (due_at - timezone.now()).total_seconds()


def attempts(event: Event) -> list[tuple[int | None, str]]:
    return [(attempt.status, attempt.answer) for attempt in event.attempts.order_by("pk")]


def in_threads(count: int, work: Any) -> None:
    """Run `work(number)` in so many threads and raise what they raise."""

    def run(number: int) -> None:
        try:
            work(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(run, range(count)))


_TIMES = {
    Event: ("created_at", "expires_at", "next_attempt_at", "settled_at"),
    Subscription: ("next_attempt_at", "waiting_since", "lease_until"),
    Destination: ("used_at", "open_until", "probe_until", "throttled_until", "revive_since", "revive_until"),
    Attempt: ("time",),
}


class Gate:
    """A host that answers nothing until it is opened, and counts what stands before it."""

    def __init__(self, receiver: Receiver, answer: Answer | None = None) -> None:
        self.inside = self.most = 0
        self._answer = answer or Answer()
        self._lock = threading.Lock()
        self._open = threading.Event()
        receiver.respond = self._respond

    def _respond(self, _: Received) -> Answer:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self._open.wait(30)
        with self._lock:
            self.inside -= 1
        return self._answer

    def wait_for(self, count: int = 1) -> None:
        """Until so many stand before it."""
        wait_for(lambda: self.inside == count, what=f"{count} requests before the gate")

    def open(self) -> None:
        self._open.set()


def streams_to(url: str, count: int, *types: str) -> list[Stream]:
    """So many streams with events, each about something else."""
    streams = [Stream(url, subject=f"job-{number}") for number in range(count)]
    for stream in streams:
        stream.publish(*types)
    return streams


def time_passes(seconds: float) -> None:
    """As if all that is written down had been so much earlier."""
    by = timedelta(seconds=seconds)
    for model, names in _TIMES.items():
        model.objects.update(**{name: F(name) - by for name in names})


def work() -> None:
    """What relay and deliverers do together, once."""
    destination_queue.mark_waiting()
    destination_queue.wake_available()
    for identity in due_streams.due(1000):
        stream_delivery.drain(identity)


def work_until_delivered(*streams: Stream) -> None:
    others = Event.objects.filter(subscription__in=[stream.pk for stream in streams]).exclude(state=DELIVERED)

    def all_delivered() -> bool:
        work()
        return not others.exists()

    wait_for(all_delivered, 60, "all to be delivered")


@contextmanager
def under_way(*streams: Stream) -> Iterator[list[threading.Thread]]:
    """Somebody delivers each of these; all have ended at the end."""

    def drain(stream: Stream) -> None:
        try:
            stream.drain()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=drain, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.join()


def waiting() -> int:
    """How many streams wait for a destination."""
    return Subscription.objects.filter(waiting_since__isnull=False).count()


def sent(receiver: Receiver) -> list[tuple[str, int]]:
    """Subject and number of each request."""
    return [(received.json["subject"], received.json["jobsequence"]) for received in receiver.requests]
