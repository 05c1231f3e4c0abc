"""Notifications: listeners are woken soon, also after the connection to Redis was lost."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from django.conf import settings

from orchestrator_site.base import broker, notifications
from orchestrator_site.base.intervals import BrokerIntervals
from orchestrator_site.base.notifications import Listener, notify
from orchestrator_site.base.redis_broker import Subscription
from tests.helpers.tcp_proxy import TcpProxy
from tests.helpers.waiting import wait_for

NEVER = 1000.0

needs_redis = pytest.mark.skipif(settings.CONFIGURATION.embedded, reason="needs Redis")


@pytest.fixture
def woken() -> threading.Event:
    return threading.Event()


@pytest.fixture
def listener(woken: threading.Event) -> Iterator[Listener]:
    """A listener that receives notifications of `topic`, and is not woken without one."""
    listener = Listener("topic", woken.set, BrokerIntervals(listen=NEVER, retry=0.1))
    listener.start()
    if not settings.CONFIGURATION.embedded:
        assert woken.wait(10)
        woken.clear()
    yield listener
    listener.stop()
    lose_connections()


def lose_connections() -> None:
    """Break the connections of all listeners, which also ends the threads of those that are stopped."""
    if not settings.CONFIGURATION.embedded:
        broker._redis_broker().client.client_kill_filter(_type="pubsub")


def wait_for_its_end() -> None:
    """Wait until the thread of the listener that was stopped has ended."""
    wait_for(lambda: not any("listener topic" in thread.name for thread in threading.enumerate()), 10, "the thread's end")


@pytest.mark.usefixtures("listener")
def test_a_notification_wakes_the_listener_of_its_topic(woken: threading.Event) -> None:
    # When another topic is notified, I expect nothing
    notify("another topic")
    assert not woken.is_set()

    # When its topic is, I expect it to be woken
    notify("topic")
    assert woken.wait(10)


def test_a_stopped_listener_is_not_woken(listener: Listener, woken: threading.Event) -> None:
    listener.stop()
    lose_connections()
    if not settings.CONFIGURATION.embedded:
        wait_for_its_end()
    notify("topic")
    assert not woken.is_set()
    notifications._local["topic"].append(woken.set)  # the fixture stops it again


@needs_redis
@pytest.mark.usefixtures("listener")
def test_a_listener_connects_again_and_is_woken_because_notifications_may_be_lost(woken: threading.Event) -> None:
    # When its connection is lost
    lose_connections()

    # I expect it to be woken without a notification, and by the next one
    assert woken.wait(10)
    woken.clear()
    notify("topic")
    assert woken.wait(10)


@needs_redis
def test_silence_wakes_no_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a listener that was woken when it had subscribed
    wakes: list[None] = []
    waits: list[bool] = []
    wait = Subscription.wait

    def wait_and_store(subscription: Subscription, seconds: float) -> bool:
        waits.append(wait(subscription, seconds))
        return waits[-1]

    monkeypatch.setattr(Subscription, "wait", wait_and_store)
    listener = Listener("topic", lambda: wakes.append(None), BrokerIntervals(listen=0.05))
    listener.start()

    # When nothing is notified, I expect no further wake: the process looks at the rows from time to time by itself
    wait_for(lambda: len(waits) > 2, 10, "three waits")
    listener.stop()
    assert (len(wakes), any(waits)) == (1, False)


@needs_redis
def test_a_listener_connects_again_when_the_network_drops_everything(
    woken: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a listener whose connection stays open, and on which nothing arrives any more
    intervals = BrokerIntervals(listen=0.2, ping=0.1, answer=0.5, retry=0.1)
    with TcpProxy.to(settings.CONFIGURATION.redis_url) as proxy:
        configuration = replace(settings.CONFIGURATION, redis_url=proxy.through(settings.CONFIGURATION.redis_url))
        monkeypatch.setattr(broker, "broker", broker.make_broker(configuration, intervals))
        subscriptions: list[Subscription] = []
        subscribe = broker.subscribe

        def subscribe_and_store(topic: str, intervals: BrokerIntervals) -> Subscription:
            subscriptions.append(subscribe(topic, intervals))
            return subscriptions[-1]

        monkeypatch.setattr(broker, "subscribe", subscribe_and_store)
        listener = Listener("topic", woken.set, intervals)
        listener.start()
        assert woken.wait(10)
        proxy.partition()

        # I expect it to give up this connection, and to subscribe again when the network is repaired
        wait_for(lambda: subscriptions[0]._pubsub.connection is None, 10, "the end of the connection")
        proxy.heal()
        wait_for(lambda: len(subscriptions) == 2, 10, "another connection")
        listener.stop()
        wait_for_its_end()  # before the broker, which closes its connections at its own end


@needs_redis
def test_a_quiet_connection_that_answers_is_kept() -> None:
    # Given a subscription of a topic that is not notified
    client = broker.make_broker(settings.CONFIGURATION, BrokerIntervals(ping=0.01)).client  # type: ignore[attr-defined]
    subscription = Subscription(client, "topic", BrokerIntervals())

    # When Redis is asked many times whether it still answers, I expect no error, and no notification
    assert not any(subscription.wait(0.05) for _ in range(10))
    subscription.close()
