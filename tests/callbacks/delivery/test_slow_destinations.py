"""Hosts that accept every event, but slowly, leave threads for the events of other hosts."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.test import Client

from callbacks import delivery_hints
from callbacks.delivery import destination_queue
from callbacks.delivery.stream_delivery import Deliverer
from callbacks.delivery.thread_limiter import ThreadLimiter
from callbacks.models import Attempt, Destination, Event
from orchestrator_site.base.intervals import DeliveryIntervals
from tests.helpers.delivery_fixtures import (
    DELIVERED,
    EXIT,
    IMPATIENT,
    LOG,
    START,
    Gate,
    Stream,
    deliver_all,
    deliver_process,
    delivering,
    streams_to,
)
from tests.helpers.receiver import Answer, Fault, Received, Receiver
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

HOSTS, THREADS = 6, 16
SLOW = 0.6
INTERVALS = DeliveryIntervals(answer=25.0, slow=0.5, thread_wait=(0.1, 0.2))  # a busy machine is not taken for a slow host


def answer_slowly(_: Received) -> Answer:
    time.sleep(SLOW)
    return Answer()


def are_delivered(streams: list[Stream]) -> Callable[[], bool]:
    pending = Event.objects.filter(subscription__in=[stream.pk for stream in streams]).exclude(state=DELIVERED)
    return lambda: not pending.exists()


@contextmanager
def running_process() -> Iterator[Callable[[Callable[[], bool], str], None]]:
    """Run a process that delivers; yield a function that does the relay's work until a condition holds."""
    threads = ThreadLimiter(INTERVALS, restricted=THREADS // 2, slow=THREADS // 4)

    def relay_until(condition: Callable[[], bool], what: str) -> None:
        def relay() -> bool:
            destination_queue.wake_available()
            delivery_hints.send()
            return condition()

        wait_for(relay, 20, what)

    with deliver_process(Deliverer(INTERVALS, threads=threads), THREADS, INTERVALS):
        yield relay_until


def test_slow_hosts_leave_threads_for_all_others(receiver: Receiver) -> None:
    # Given some hosts that have accepted events slowly, and a fast one
    with Receiver("0.0.0.0") as slow, Receiver() as new, running_process() as relay_until:
        slow.respond = answer_slowly
        urls = [f"http://127.0.0.{number}:{slow.port}/" for number in range(1, HOSTS + 1)]
        before = [stream for url in [*urls, receiver.url] for stream in streams_to(url, 1, START, LOG, EXIT)]
        relay_until(are_delivered(before), "the first events")
        assert Destination.objects.filter(slowness__gt=0).count() == HOSTS

        # When the slow ones hang, with events of more jobs than there are threads
        gate = Gate(slow)
        held_up = [stream for url in urls for stream in streams_to(url, 4, START)]
        assert len(held_up) > THREADS
        relay_until(lambda: gate.inside == THREADS // 4, "slow hosts to occupy all threads that they may use")

        # I expect events for the fast host and for a new one to arrive meanwhile
        relay_until(are_delivered(streams_to(receiver.url, 8, START, EXIT)), "events for a fast host")
        relay_until(are_delivered(streams_to(new.url, 1, START, EXIT)), "events for a new host")
        assert gate.inside == gate.max_inside == THREADS // 4

        # and the slow ones to get everything in the end
        gate.open()
        slow.respond = lambda _: Answer()
        relay_until(are_delivered(held_up), "events for the slow hosts")


def test_a_fast_host_that_stops_answering_occupies_few_threads(receiver: Receiver) -> None:
    # Given a process with one thread for slow destinations, and a host that has been fast
    threads = ThreadLimiter(INTERVALS, restricted=2, slow=1)
    deliverer = Deliverer(INTERVALS, threads=threads)
    deliver_all(*streams_to(receiver.url, 1, START, LOG, EXIT), deliverer=deliverer)
    assert Destination.objects.get().window == 8

    # When a delivery to it takes longer than a quick answer
    gate = Gate(receiver)
    first, *others = streams_to(receiver.url, 5, START, deliverer=deliverer)
    with delivering(first):
        gate.wait_for(1)
        wait_for(lambda: not threads.is_fast(Destination.objects.get()))

        # I expect one more to be tried, and the others later
        with delivering(*others) as started:
            wait_for(lambda: sum(thread.is_alive() for thread in started) == 1 and gate.inside == 2)
            gate.open()
    assert Attempt.objects.count() == 3 + 2
    deliver_all(first, *others, deliverer=deliverer)


@pytest.mark.parametrize("fault", ["drip", "drip_headers"])
def test_a_host_that_drips_is_slow(receiver: Receiver, fault: Fault) -> None:
    receiver.will(Answer(fault=fault))
    intervals = DeliveryIntervals(answer=IMPATIENT.answer, slow=IMPATIENT.answer / 2)
    streams_to(receiver.url, 1, deliverer=Deliverer(intervals))[0].deliver()
    assert Destination.objects.get().slowness > 0


def test_an_operator_sees_and_resets_a_slow_host(receiver: Receiver, client: Client) -> None:
    # Given a host that answered slowly
    receiver.respond = answer_slowly
    streams_to(receiver.url, 1, deliverer=Deliverer(INTERVALS))[0].deliver()
    address = f"/v1/destinations/{Destination.objects.get().pk}"
    assert client.get(address).json()["slow"] is True

    # When it is reset, I expect it not to be slow any more
    assert client.post(f"{address}/reset").json()["slow"] is False
    assert client.get(address).json()["slow"] is False
