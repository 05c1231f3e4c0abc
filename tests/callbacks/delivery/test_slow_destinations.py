"""Hosts that take every event, but slowly, do not keep the threads from other hosts' events."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.test import Client

from callbacks.delivery import destination_queue, due_streams, stream_delivery, thread_limiter
from callbacks.delivery.actors import deliver
from callbacks.delivery.thread_limiter import THREADS, Places, is_trusted
from callbacks.models import Attempt, Destination, Event
from callbacks.rules import destination_breaker
from orchestrator_site.base.broker import make_worker
from tests.helpers.delivery_fixtures import DELIVERED, EXIT, LOG, START, Gate, Stream, streams_to, under_way, work_until_delivered
from tests.helpers.receiver import Answer, Received, Receiver
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("empty_queue", "patient")]

HOSTS = 20
SLOW = 0.2


@pytest.fixture(autouse=True)
def quickly_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is slow after a tenth of a second, and who finds no thread asks again soon."""
    monkeypatch.setattr(destination_breaker, "SLOW_SECONDS", SLOW / 2)
    monkeypatch.setattr(stream_delivery, "_UNTRUSTED_PAUSE", (0.5, 1.0))


def answer_slowly(_: Received) -> Answer:
    time.sleep(SLOW)
    return Answer()


@contextmanager
def delivering() -> Iterator[Callable[[Callable[[], bool], str], None]]:
    """A whole process that delivers; gives a function that plays the relay until a condition holds."""
    worker = make_worker({deliver.queue_name}, THREADS)
    worker.start()
    finder = due_streams.Finder()

    def relay_until(condition: Callable[[], bool], what: str) -> None:
        def look() -> bool:
            destination_queue.wake_available()
            finder.look()
            return condition()

        wait_for(look, 20, what)

    try:
        yield relay_until
    finally:
        worker.stop()


def are_delivered(streams: list[Stream]) -> Callable[[], bool]:
    pending = Event.objects.filter(subscription__in=[stream.pk for stream in streams]).exclude(state=DELIVERED)
    return lambda: not pending.exists()


def test_twenty_slow_hosts_leave_threads_for_all_others(receiver: Receiver) -> None:
    # Given twenty hosts that have taken events, slowly, and one that is quick
    with Receiver("0.0.0.0") as slow, Receiver() as new, delivering() as relay_until:
        slow.respond = answer_slowly
        urls = [f"http://127.0.0.{number}:{slow.port}/" for number in range(1, HOSTS + 1)]
        before = [stream for url in [*urls, receiver.url] for stream in streams_to(url, 1, START, LOG, EXIT)]
        relay_until(are_delivered(before), "the first events")
        assert Destination.objects.filter(slowness__gt=0).count() == HOSTS

        # When all twenty take very long for what comes next, for more jobs than there are threads
        gate = Gate(slow)
        held_up = [stream for url in urls for stream in streams_to(url, 4, START)]
        assert len(held_up) > THREADS
        relay_until(lambda: gate.inside == THREADS // 4, "slow hosts to have all threads that they may have")

        # I expect events for the quick host and for one that nobody knows yet to arrive meanwhile
        relay_until(are_delivered(streams_to(receiver.url, 8, START, EXIT)), "events for a quick host")
        relay_until(are_delivered(streams_to(new.url, 1, START, EXIT)), "events for a new host")
        assert gate.inside == gate.most == THREADS // 4

        # and the slow ones to get everything in the end
        gate.open()
        slow.respond = lambda _: Answer()
        relay_until(are_delivered(held_up), "events for the slow hosts")


def test_a_host_that_becomes_slow_keeps_few_threads_waiting(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a process with one thread for the slow, and a host that has been quick
    monkeypatch.setattr(thread_limiter, "places", Places(untrusted=2, slow=1))
    work_until_delivered(*streams_to(receiver.url, 1, START, LOG, EXIT))
    assert Destination.objects.get().window == 8

    # When it has not answered a delivery for longer than a quick answer takes
    gate = Gate(receiver)
    first, *others = streams_to(receiver.url, 5, START)
    with under_way(first):
        gate.wait_for(1)
        wait_for(lambda: not is_trusted(Destination.objects.get()))

        # I expect one more to be tried, and the others to come later
        with under_way(*others) as deliverers:
            wait_for(lambda: sum(thread.is_alive() for thread in deliverers) == 1 and gate.inside == 2)
            gate.open()
    assert Attempt.objects.count() == 3 + 2
    work_until_delivered(first, *others)


def test_slow_hosts_share_their_places_host_by_host() -> None:
    # Given eight places for slow hosts, and one that has taken all that it may have
    places = Places(untrusted=16, slow=8)
    taken = [places.take(1, slow=True) for _ in range(8)]
    assert taken == [True] * 4 + [False] * 4

    # I expect one for each of the next four, and none more
    assert [places.take(host, slow=True) for host in (2, 3, 3, 4, 5, 6)] == [True, True, False, True, True, False]

    # and what is given back to be for those that have none
    places.give_back(1, slow=True)
    assert [places.take(host, slow=True) for host in (1, 2, 6)] == [False, False, True]

    # and new hosts to have the others
    assert [places.take(7, slow=False) for _ in range(9)] == [True] * 8 + [False]


@pytest.mark.parametrize("fault", ["drip", "drip_headers"])
def test_a_host_that_drips_is_slow(receiver: Receiver, impatient: None, fault: str) -> None:
    receiver.will(Answer(fault=fault))  # type: ignore[arg-type]
    streams_to(receiver.url, 1)[0].drain()
    assert Destination.objects.get().slowness > 0


def test_an_operator_sees_that_a_host_is_slow_and_may_take_it_for_well(receiver: Receiver, client: Client) -> None:
    # Given a host that answered slowly
    receiver.respond = answer_slowly
    streams_to(receiver.url, 1)[0].drain()
    address = f"/v1/destinations/{Destination.objects.get().pk}"
    assert client.get(address).json()["slow"] is True

    # When it is reset, I expect it to be as any other
    assert client.post(f"{address}/reset").json()["slow"] is False
    assert client.get(address).json()["slow"] is False
