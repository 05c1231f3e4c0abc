"""The Dramatiq broker: Redis in production, in this process when embedded.

A message is a hint: the rows say what is to be done, and `relay` finds rows whose message was lost. So without the broker
jobs and events are a second late, and no request fails.
"""

import logging
import time
from typing import Any

import dramatiq
import redis
from django.conf import settings
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestrator_site.base.config.configuration import Configuration
from orchestrator_site.base.intervals import BrokerIntervals

logger = logging.getLogger(__name__)

_CONNECTIONS = 16  # hundreds of threads may finish at once: they then wait for a free connection


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


class PollingRedisBroker(RedisBroker):
    """A broker that polls often for new messages only: Dramatiq has one time-out for consumers and for idle threads."""

    def __init__(self, client: redis.Redis, intervals: BrokerIntervals) -> None:
        super().__init__(client=client, middleware=[], namespace="orchestrator")  # type: ignore[no-untyped-call]
        self._intervals = intervals

    def consume(
        self, queue_name: str, prefetch: int = 1, timeout: int = _milliseconds(BrokerIntervals().idle_check)
    ) -> dramatiq.Consumer:
        """Return a consumer that polls often, or at every `timeout` for delayed messages, which this service never sends."""
        if not queue_name.endswith(".DQ"):
            timeout = _milliseconds(self._intervals.poll)
        return super().consume(queue_name, prefetch, timeout)


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
        retry=Retry(NoBackoff(), 0),
    )
    return PollingRedisBroker(redis.Redis.from_pool(pool), intervals)


broker = make_broker(settings.CONFIGURATION)
dramatiq.set_broker(broker)


class _Hints:
    """A sender of messages. While the broker fails, one thread at a time tries it and the others skip it."""

    def __init__(self, intervals: BrokerIntervals = BrokerIntervals()) -> None:
        self._intervals = intervals
        self._failing = False
        self._skip_until = float("-inf")

    def send(self, queue: str, actor: str, *args: Any) -> bool:
        now = time.monotonic()
        if now < self._skip_until:
            return False
        if self._failing:
            self._skip_until = now + self._intervals.send
        message: dramatiq.Message[Any] = dramatiq.Message(queue_name=queue, actor_name=actor, args=args, kwargs={}, options={})
        try:
            broker.declare_queue(queue)
            broker.enqueue(message)
        except Exception as error:
            self._failing, self._skip_until = True, time.monotonic() + self._intervals.retry
            logger.warning("the broker did not accept a message: %s", error, extra={"queue": queue, "actor": actor})
            return False
        self._failing, self._skip_until = False, float("-inf")
        return True


_hints = _Hints()


def hint(queue: str, actor: str, *args: Any) -> bool:
    """Send a message; return whether the broker accepted it. Failures are logged and never raised.

    `args` are ids, never data.
    """
    return _hints.send(queue, actor, *args)


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


def make_worker(queues: set[str], threads: int, intervals: BrokerIntervals = BrokerIntervals()) -> dramatiq.Worker:
    """Return `threads` threads, not yet started, that consume `queues`.

    They prefetch no more messages than there are threads: another process could handle the rest.
    """
    for queue in queues:
        broker.declare_queue(queue)
    worker = dramatiq.Worker(broker, queues=queues, worker_timeout=_milliseconds(intervals.idle_check), worker_threads=threads)
    worker.queue_prefetch = threads
    return worker
