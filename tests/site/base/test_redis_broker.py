"""Consumers of Redis are notified of messages instead of polling for them."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import dramatiq
import pytest
from django.conf import settings
from dramatiq import Message, MessageProxy
from dramatiq.errors import ConnectionClosed

from orchestrator_site.base.broker import make_broker
from orchestrator_site.base.intervals import BrokerIntervals
from orchestrator_site.base.message_threads import MessageThreads
from orchestrator_site.base.redis_broker import NotifyingRedisBroker
from tests.helpers.tcp_proxy import TcpProxy
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.skipif(settings.CONFIGURATION.embedded, reason="needs Redis")

NEVER = 1000.0


@pytest.fixture
def received() -> list[int]:
    return []


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Ends the calls of the actor."""
    release = threading.Event()
    yield release
    release.set()


def consume(received: list[int], release: threading.Event, intervals: BrokerIntervals) -> tuple[MessageThreads, dramatiq.Actor]:  # type: ignore[type-arg]
    """Start one thread for an actor that stores the number that it gets and then waits for `release`."""
    broker = make_broker(settings.CONFIGURATION, intervals)
    assert isinstance(broker, NotifyingRedisBroker)
    broker.flush("numbers")

    @dramatiq.actor(broker=broker, queue_name="numbers", actor_name="receive")
    def receive(number: int) -> None:
        received.append(number)
        assert release.wait(30)

    worker = MessageThreads(broker, {"numbers"}, 1, intervals)
    worker.start()
    return worker, receive


def test_an_idle_consumer_is_notified_of_a_message(received: list[int], release: threading.Event) -> None:
    # Given a consumer that looks for messages every quarter of an hour only, and that has found none
    worker, receive = consume(received, release, BrokerIntervals(idle_check=NEVER, stop=0))
    wait_for(lambda: worker.consumers["numbers"].consumer is not None, 10, "the consumer")

    # When a message is sent, I expect it to be received
    receive.send(1)
    wait_for(lambda: received == [1], 10, "the message")
    release.set()
    receive.send(2)
    wait_for(lambda: received == [1, 2], 10, "the second message")
    worker.stop(timeout=0)


def test_a_message_that_is_not_announced_is_found(received: list[int], release: threading.Event) -> None:
    # Given a consumer
    worker, receive = consume(received, release, BrokerIntervals(idle_check=0.05))

    # When a message is put into its queue by a broker that announces nothing
    message = receive.message(1)
    message = message.copy(options={"redis_message_id": message.message_id})
    worker.broker.do_enqueue("numbers", message.message_id, message.encode())  # type: ignore[attr-defined]

    # I expect it to be found soon
    wait_for(lambda: received == [1], 10, "the message")
    release.set()
    worker.stop()


def test_an_idle_consumer_does_not_ask_redis_each_time_it_checks_whether_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a consumer that has found no message
    broker = make_broker(settings.CONFIGURATION, BrokerIntervals(idle_check=NEVER, stop_check=0.01))
    assert isinstance(broker, NotifyingRedisBroker)
    broker.declare_queue("numbers")
    broker.flush("numbers")
    consumer = broker.consume("numbers")
    assert next(consumer) is None

    # When it is asked again and again, I expect it to ask Redis only after an announcement
    monkeypatch.setattr(broker, "do_fetch", lambda *_: pytest.fail("asked Redis"))
    assert [next(consumer) for _ in range(3)] == [None] * 3
    monkeypatch.undo()
    broker.enqueue(Message("numbers", "receive", (1,), {}, {}))
    assert wait_for(lambda: next(consumer), 10, "the message").args == (1,)
    consumer.close()


def test_messages_that_came_while_all_threads_were_busy_are_received(received: list[int], release: threading.Event) -> None:
    # Given a consumer whose only thread is busy, and messages that were published meanwhile
    worker, receive = consume(received, release, BrokerIntervals(idle_check=NEVER, stop=0))
    for number in (1, 2, 3):
        receive.send(number)
    wait_for(lambda: received == [1], 10, "the first message")

    # When the thread is done, I expect it to receive the others
    release.set()
    wait_for(lambda: received == [1, 2, 3], 10, "all messages")
    worker.stop(timeout=0)


def test_a_subscription_is_closed_once_the_thread_that_waits_for_it_is_done() -> None:
    # Given a thread that waits for a topic
    broker = make_broker(settings.CONFIGURATION, BrokerIntervals())
    assert isinstance(broker, NotifyingRedisBroker)
    subscription = broker.subscribe("numbers", BrokerIntervals())
    with ThreadPoolExecutor(2) as threads:
        notified = threads.submit(subscription.wait, 30)
        wait_for(subscription._in_use.locked, 10, "the thread")

        # When another thread closes the subscription, as a worker that stops does with its consumers', and something is published
        closed = threads.submit(subscription.close)
        broker.publish("numbers")

        # I expect the first to be notified, and both to end without an error
        assert notified.result(timeout=30)
        closed.result(timeout=30)


def test_a_silent_redis_is_a_broken_connection_to_dramatiq() -> None:
    # Given a consumer and a network that then drops everything
    intervals = BrokerIntervals(answer=0.2)
    with TcpProxy.to(settings.CONFIGURATION.redis_url) as proxy:
        configuration = replace(settings.CONFIGURATION, redis_url=proxy.through(settings.CONFIGURATION.redis_url))
        broker = make_broker(configuration, intervals)
        broker.declare_queue("numbers")
        consumer = broker.consume("numbers")
        message = MessageProxy(Message("numbers", "receive", (), {}, {"redis_message_id": "1"}))
        proxy.partition()

        # When it looks for messages or reports what became of them, I expect the error after which Dramatiq tries again
        calls: list[Callable[[], object]] = [
            lambda: next(consumer),
            lambda: consumer.ack(message),
            lambda: consumer.nack(message),
            lambda: consumer.requeue([message]),
            lambda: broker.consume("numbers"),
        ]
        for call in calls:
            with pytest.raises(ConnectionClosed):
                call()
