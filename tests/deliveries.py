"""Relay and deliverers as a test plays them, with a clock that it turns."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.db import connections
from django.db.models import F

from callbacks import delivery, destinations, finding
from callbacks.models import Attempt, Destination, Event, Subscription
from tests.receiver import Answer, Received, Receiver
from tests.test_delivery import DELIVERED, Stream
from tests.waiting import wait_for

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
    destinations.mark_waiting()
    destinations.wake_available()
    for identity in finding.due(1000):
        delivery.drain(identity)


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
