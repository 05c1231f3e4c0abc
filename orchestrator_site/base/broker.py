"""The Dramatiq broker: Redis in production, in this process when embedded.

A message is a hint: the rows say what is to be done, and `relay` finds rows whose message was lost. So without the broker
jobs and events are a second late, and no request fails.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import dramatiq
import redis
from django.conf import settings
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestrator_site.base import redis_broker
from orchestrator_site.base.config.configuration import Configuration
from orchestrator_site.base.intervals import BrokerIntervals
from orchestrator_site.base.message_threads import MessageThreads
from orchestrator_site.base.redis_broker import NotifyingRedisBroker, Subscription

logger = logging.getLogger(__name__)

_CONNECTIONS = 16  # hundreds of threads may finish at once: they then wait for a free connection


def make_broker(configuration: Configuration, intervals: BrokerIntervals = BrokerIntervals()) -> dramatiq.Broker:
    """Return a broker without Dramatiq's retries, time limits and age limits, which are in the database instead."""
    if configuration.embedded:
        return StubBroker(middleware=[])
    pool = redis.BlockingConnectionPool.from_url(
        configuration.redis_url,
        max_connections=_CONNECTIONS,
        timeout=intervals.connection_wait,
        socket_connect_timeout=intervals.connect,
        socket_timeout=intervals.answer,
        health_check_interval=intervals.ping,
        retry=Retry(NoBackoff(), 0),
    )
    return NotifyingRedisBroker(redis.Redis.from_pool(pool), intervals)


broker = make_broker(settings.CONFIGURATION)
dramatiq.set_broker(broker)


class _Hints:
    """A sender of messages. While the broker fails, one thread at a time tries it and the others skip it."""

    def __init__(self, intervals: BrokerIntervals = BrokerIntervals()) -> None:
        self._intervals = intervals
        self._failing = False
        self._skip_until = float("-inf")

    def send(self, message: Callable[[], object], **extra: object) -> bool:
        """Call `message`, which sends it. `extra` describes it in the log."""
        now = time.monotonic()
        if now < self._skip_until:
            return False
        if self._failing:
            self._skip_until = now + self._intervals.send
        try:
            message()
        except Exception as error:
            self._failing, self._skip_until = True, time.monotonic() + self._intervals.retry
            logger.warning("the broker did not accept a message: %s", error, extra=extra)
            return False
        self._failing, self._skip_until = False, float("-inf")
        return True


_hints = _Hints()


def hint(queue: str, actor: str, *args: Any) -> bool:
    """Send a message; return whether the broker accepted it. Failures are logged and never raised.

    `args` are ids, never data.
    """

    def enqueue() -> None:
        message: dramatiq.Message[Any] = dramatiq.Message(queue_name=queue, actor_name=actor, args=args, kwargs={}, options={})
        broker.declare_queue(queue)
        broker.enqueue(message)

    return _hints.send(enqueue, queue=queue, actor=actor)


def publish(topic: str) -> bool:
    """Wake the subscriptions of a topic in all processes. Failures are logged and never raised. Only with Redis."""
    return _hints.send(lambda: redis_broker.publish(_redis_client(), topic), topic=topic)


def subscribe(topic: str, intervals: BrokerIntervals = BrokerIntervals()) -> Subscription:
    """Return a new subscription. Raise redis' `RedisError` if Redis does not answer. Only with Redis."""
    return Subscription(_redis_client(), topic, intervals)


def _redis_client() -> "redis.Redis":
    assert isinstance(broker, RedisBroker)
    return broker.client


def backlog(queue: str) -> int:
    """Return how many messages of a queue are waiting or being processed, 0 if the broker is unreachable."""
    try:
        if isinstance(broker, RedisBroker):
            return int(broker.do_qsize(queue))
        return broker.queues[queue].qsize() if queue in broker.queues else 0
    except redis.RedisError:
        return 0


def ping() -> None:
    """Raise redis' `RedisError` or `OSError` if the broker does not answer."""
    if isinstance(broker, RedisBroker):
        broker.client.ping()


def make_worker(queues: set[str], threads: int, intervals: BrokerIntervals = BrokerIntervals()) -> MessageThreads:
    """Return at most `threads` threads that consume `queues` once they are started."""
    for queue in queues:
        broker.declare_queue(queue)
    return MessageThreads(broker, queues, threads, intervals)
