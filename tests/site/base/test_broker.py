"""Messages: no thread waits long for a broker that does not answer."""

import threading
from collections.abc import Iterator

import pytest
from django.conf import settings

from orchestrator_site.base import broker
from orchestrator_site.base.broker import hint
from orchestrator_site.base.redis_broker import CONNECTIONS
from tests.helpers.waiting import wait_for


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FrozenBroker:
    """Blocks each call until `release` is set, and then fails."""

    def __init__(self) -> None:
        self.calls = 0
        self.release = threading.Event()

    def declare_queue(self, queue: str) -> None:
        """Do nothing: declaring a queue needs no broker."""

    def enqueue(self, message: object) -> None:
        self.calls += 1
        assert self.release.wait(30)
        raise OSError("timed out")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("orchestrator_site.base.broker.time.monotonic", clock)
    return clock


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> Iterator[FrozenBroker]:
    frozen = FrozenBroker()
    monkeypatch.setattr(broker, "broker", frozen)
    monkeypatch.setattr(broker, "_hints", broker._Hints())
    yield frozen
    frozen.release.set()


def test_one_thread_tries_a_frozen_broker_and_others_skip_it(clock: Clock, frozen: FrozenBroker) -> None:
    # Given a broker that has failed a while ago
    frozen.release.set()
    hint("queue", "actor")
    frozen.release.clear()
    clock.now += 2

    # When a thread tries it again
    trying = threading.Thread(target=hint, args=("queue", "actor"))
    trying.start()
    wait_for(lambda: frozen.calls == 2, 5, "the attempt")

    # I expect the next call to return at once
    hint("queue", "actor")
    assert frozen.calls == 2
    frozen.release.set()
    trying.join(5)


def test_a_broker_that_recovers_gets_every_message(clock: Clock, frozen: FrozenBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a broker that has failed
    frozen.release.set()
    assert not hint("queue", "actor")

    # When it has recovered a second later
    clock.now += 1
    messages: list[object] = []
    monkeypatch.setattr(frozen, "enqueue", messages.append)
    assert hint("queue", "actor")
    assert hint("queue", "actor")

    # I expect every message to be sent
    assert len(messages) == 2


@pytest.mark.skipif(settings.CONFIGURATION.embedded, reason="needs Redis")
def test_threads_wait_for_a_free_connection() -> None:
    # Given as many threads that talk to Redis as there are connections
    client = broker.make_broker(settings.CONFIGURATION).client  # type: ignore[attr-defined]
    taken = [client.connection_pool.get_connection() for _ in range(CONNECTIONS)]

    # When one more does, and one of them finishes
    threading.Timer(0.2, client.connection_pool.release, taken[:1]).start()

    # I expect it to be answered
    assert client.ping()
    for connection in taken[1:]:
        client.connection_pool.release(connection)
    client.close()
