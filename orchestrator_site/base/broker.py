"""The Dramatiq broker: Redis in production, in this process when embedded.

A message is a hint: the rows say what is to be done, and `relay` finds what no message came for. So a
broker that is away costs a second, and never an answer.
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

logger = logging.getLogger(__name__)

# Dramatiq's consumers poll Redis with a back-off up to this: what an idle system may wait to start a job.
_POLL_MILLISECONDS = 100
# Idle threads, and consumers of delayed messages (there are none), look up so often whether they shall end.
_IDLE_MILLISECONDS = 1000
_CONNECTIONS = 16  # hundreds of threads may be done at once: they wait for one another
_CONNECTION_SECONDS = 2
_SECONDS_BETWEEN_TRIES = 1.0
_SECONDS_TO_ASK = 5.0  # more than a try can take


class PollingRedisBroker(RedisBroker):
    """Dramatiq knows one time-out for consumers and threads; a process has a few of the former and dozens of the latter."""

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = _IDLE_MILLISECONDS) -> dramatiq.Consumer:
        """A consumer that answers a new message soon, where messages are to be expected."""
        delayed = queue_name.endswith(".DQ")
        return super().consume(queue_name, prefetch, timeout if delayed else _POLL_MILLISECONDS)


def make_broker(configuration: Configuration) -> dramatiq.Broker:
    """A broker without Dramatiq's retries, time limits and age limits: these live in the rows."""
    if configuration.embedded:
        return StubBroker(middleware=[])
    pool = redis.BlockingConnectionPool.from_url(
        configuration.redis_url,
        max_connections=_CONNECTIONS,
        timeout=_CONNECTION_SECONDS,
        socket_connect_timeout=1,
        socket_timeout=1,
        retry=Retry(NoBackoff(), 0),
    )
    return PollingRedisBroker(  # type: ignore[no-untyped-call]
        client=redis.Redis.from_pool(pool), middleware=[], namespace="orchestrator"
    )


broker = make_broker(settings.CONFIGURATION)
dramatiq.set_broker(broker)


class _Hints:
    """Sends messages. While the broker does not answer one caller at a time asks it, and the others do not wait for it."""

    def __init__(self) -> None:
        self._failing = False
        self._silent_until = float("-inf")

    def send(self, queue: str, actor: str, *args: Any) -> bool:
        now = time.monotonic()
        if now < self._silent_until:
            return False
        if self._failing:
            self._silent_until = now + _SECONDS_TO_ASK
        message: dramatiq.Message[Any] = dramatiq.Message(queue_name=queue, actor_name=actor, args=args, kwargs={}, options={})
        try:
            broker.declare_queue(queue)
            broker.enqueue(message)
        except Exception as error:
            self._failing, self._silent_until = True, time.monotonic() + _SECONDS_BETWEEN_TRIES
            logger.warning("the broker takes no message: %s", error, extra={"queue": queue, "actor": actor})
            return False
        self._failing, self._silent_until = False, float("-inf")
        return True


_hints = _Hints()


def hint(queue: str, actor: str, *args: Any) -> bool:
    """Send a message; False where that failed, which is logged and never raised. `args` are ids, never data."""
    return _hints.send(queue, actor, *args)


def backlog(queue: str) -> int:
    """How many messages wait in this queue or are at work; 0 where the broker does not answer (it takes none either)."""
    try:
        if isinstance(broker, RedisBroker):
            return int(broker.do_qsize(queue))
        return broker.queues[queue].qsize() if queue in broker.queues else 0
    except redis.RedisError:
        return 0


def ping() -> None:
    """Raise what the broker's client raises where it does not answer."""
    if isinstance(broker, RedisBroker):
        broker.client.ping()


def make_worker(queues: set[str], threads: int) -> dramatiq.Worker:
    """Threads that consume these queues. Messages are not hoarded where another process could take them."""
    for queue in queues:
        broker.declare_queue(queue)
    worker = dramatiq.Worker(broker, queues=queues, worker_timeout=_IDLE_MILLISECONDS, worker_threads=threads)
    worker.queue_prefetch = threads
    return worker
