"""Streams, deliverers and the relay, as tests use them. The fixtures are there for every test."""

import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from callbacks.delivery import destination_queue, due_streams
from callbacks.delivery.dispatcher import Dispatcher
from callbacks.delivery.run_sender import Result
from callbacks.delivery.stream_delivery import Deliverer
from callbacks.models import Attempt, Destination, Event, Owner, Subscription
from orchestrator_site.base.intervals import DeliveryIntervals
from orchestrator_site.base.notifications import Listener
from tests.helpers import factories
from tests.helpers.receiver import Answer, Received, Receiver
from tests.helpers.waiting import wait_for

KEY = "the key"
START, LOG, EXIT = "orchestrator.job.start", "orchestrator.job.log", "orchestrator.job.exit"
PENDING, DELIVERED, DEAD = Event.State.PENDING, Event.State.DELIVERED, Event.State.DEAD

PATIENT = DeliveryIntervals(answer=25.0, run=25.0)  # a slow machine may delay an answer for longer than an attempt may take
IMPATIENT = DeliveryIntervals(connect=0.2, answer=0.2)  # for hosts that do not answer


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


class Stream:
    """A subscription, and a process that delivers it."""

    def __init__(
        self,
        url: str,
        *,
        keys: Sequence[str] = (KEY,),
        headers: Mapping[str, str] | None = None,
        subject: str = "job-1",
        owner: str = "",
        client: str = "",
        deliverer: Deliverer | None = None,
    ) -> None:
        self.uuid = uuid.uuid4()
        factories.subscribe(self.uuid, subject, url, keys=keys, headers=headers, owner=owner, client=client)
        self.pk = Subscription.objects.get(stream=self.uuid).pk
        self.deliverer = deliverer or Deliverer(PATIENT)

    def publish(self, *types: str) -> None:
        with transaction.atomic():
            for type_ in types or (START,):
                outbox.publish(self.uuid, type_, "orchestrator/service", {"jobId": "j", "meta": {}})

    def deliver(self) -> None:
        deliver(self.deliverer, self.pk)

    def retry_now(self, times: int = 1) -> None:
        """Deliver as if the time of the next attempt had come, as many times as asked for."""
        for _ in range(times):
            Event.objects.filter(subscription=self.pk).update(next_attempt_at=None)
            Destination.objects.filter(open_until__isnull=False).update(open_until=Now())
            Destination.objects.update(throttled_until=None)
            Subscription.objects.filter(pk=self.pk, next_attempt_at__isnull=False).update(next_attempt_at=Now())
            self.deliver()

    def age(self, by: timedelta) -> None:
        """Make all events of the stream older."""
        Event.objects.filter(subscription=self.pk).update(created_at=F("created_at") - by, expires_at=F("expires_at") - by)

    def expire_lease(self) -> None:
        """End the lease, as if the process that holds it had died long ago."""
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
    def due_in(self) -> float:
        """Seconds until the stream is due."""
        due_at = self.row.next_attempt_at
        assert due_at is not None
        return (due_at - timezone.now()).total_seconds()


def deliver(deliverer: Deliverer, *streams: int) -> None:
    """Deliver what is due of these streams, and then what may be sent in the same slots, in this thread."""
    claimed = deliverer.claim(streams)
    deliveries = deque(claimed.deliveries)
    while claimed.locked:
        claimed = deliverer.claim(claimed.locked)
        deliveries += claimed.deliveries
    results: list[Result] = []
    while deliveries or results:
        if deliveries:
            delivery = deliveries.popleft()
            try:
                results.append(deliverer.send(delivery))
            except BaseException:
                deliverer.abandon(delivery)
                raise
        recorded = deliverer.record(results)
        deliveries += recorded.deliveries
        results = recorded.locked
        for destination in recorded.freed:
            destination_queue.wake_waiting(destination)


def attempts(event: Event) -> list[tuple[int | None, str]]:
    """Status and answer of each attempt."""
    return [(attempt.status, attempt.answer) for attempt in event.attempts.order_by("pk")]


def in_threads(count: int, work: Callable[[int], Any]) -> None:
    """Run `work(number)` in `count` threads at once and raise what they raise."""

    def run(number: int) -> None:
        try:
            work(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(run, range(count)))


_TIMES = {
    Event: ("created_at", "expires_at", "next_attempt_at", "settled_at"),
    Subscription: ("next_attempt_at", "waiting_since", "lease_until", "promised_at"),
    Owner: ("limited_until",),
    Destination: ("used_at", "open_until", "probe_until", "throttled_until", "revive_since", "revive_until", "limited_until"),
    Attempt: ("time",),
}


class Gate:
    """A host that holds all requests until the gate is opened, and counts them."""

    def __init__(self, receiver: Receiver, answer: Answer | None = None) -> None:
        self.inside = self.max_inside = 0
        self._answer = answer or Answer()
        self._lock = threading.Lock()
        self._open = threading.Event()
        receiver.respond = self._respond

    def _respond(self, _: Received) -> Answer:
        with self._lock:
            self.inside += 1
            self.max_inside = max(self.max_inside, self.inside)
        self._open.wait(30)
        with self._lock:
            self.inside -= 1
        return self._answer

    def wait_for(self, count: int = 1) -> None:
        """Wait until the gate holds this many requests."""
        wait_for(lambda: self.inside == count, what=f"{count} requests at the gate")

    def open(self) -> None:
        self._open.set()


def streams_to(url: str, count: int, *types: str, deliverer: Deliverer | None = None) -> list[Stream]:
    """Make streams with the same events, for `job-0`, `job-1`, …, that one process delivers."""
    deliverer = deliverer or Deliverer(PATIENT)
    streams = [Stream(url, subject=f"job-{number}", deliverer=deliverer) for number in range(count)]
    for stream in streams:
        stream.publish(*types)
    return streams


def time_passes(seconds: float) -> None:
    """Move all times in the database into the past."""
    by = timedelta(seconds=seconds)
    for model, names in _TIMES.items():
        model.objects.update(**{name: F(name) - by for name in names})


def relay_and_deliver(deliverer: Deliverer | None = None) -> None:
    """Do once what the relay and a deliverer do all the time."""
    deliverer = deliverer or Deliverer(PATIENT)
    destination_queue.wake_unmarked()
    destination_queue.wake_available()
    for identity in due_streams.due(1000):
        deliver(deliverer, identity)


def deliver_all(*streams: Stream, deliverer: Deliverer | None = None) -> None:
    """Relay and deliver until every event of these streams is delivered."""
    others = Event.objects.filter(subscription__in=[stream.pk for stream in streams]).exclude(state=DELIVERED)

    def all_delivered() -> bool:
        relay_and_deliver(deliverer)
        return not others.exists()

    wait_for(all_delivered, 60, "all events to be delivered")


@contextmanager
def delivering(*streams: Stream) -> Iterator[list[threading.Thread]]:
    """Deliver each stream in a thread of its own; wait for the threads at the end."""

    def deliver(stream: Stream) -> None:
        try:
            stream.deliver()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=deliver, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.join()


@contextmanager
def deliver_process(deliverer: Deliverer, threads: int, intervals: DeliveryIntervals = PATIENT) -> Iterator[None]:
    """Run the threads of a process that delivers what is due when it is asked to."""
    dispatcher = Dispatcher(deliverer, intervals, threads=threads)
    listener = Listener(delivery_hints.TOPIC, dispatcher.wake)
    dispatcher.start()
    listener.start()
    try:
        yield
    finally:
        listener.stop()
        dispatcher.stop(intervals.stop)


def parked() -> int:
    """Count the streams that are parked for a destination."""
    return Subscription.objects.filter(waiting_since__isnull=False).count()


def sent(receiver: Receiver) -> list[tuple[str, int]]:
    """Subject and sequence number of each request."""
    return [(received.json["subject"], received.json["jobsequence"]) for received in receiver.requests]
