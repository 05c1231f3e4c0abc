"""Dramatiq's Redis broker with consumers that wait to be notified. Dramatiq's own poll ten times a second.

An embedded process does not import this module, because the client of Redis takes 6 MB. So it raises Dramatiq's errors only.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import redis
from dramatiq import Consumer, Message, MessageProxy
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.errors import ConnectionClosed
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestrator_site.base.intervals import BrokerIntervals

CONNECTIONS: Final = 16  # hundreds of threads may finish at once: they then wait for a free connection
_NAMESPACE = "orchestrator"


class Subscription:
    """A connection on which Redis reports that something was published for a topic."""

    def __init__(self, client: "redis.Redis", topic: str, intervals: BrokerIntervals) -> None:
        """Raise `ConnectionClosed` if Redis does not answer."""
        self._in_use = threading.Lock()  # its connection may be used by one thread at a time
        self._pubsub = client.pubsub()  # type: ignore[no-untyped-call]
        with _dramatiq_errors(redis.RedisError):
            self._pubsub.subscribe(_channel(topic))
            if self._pubsub.get_message(timeout=intervals.answer) is None:  # its answer to SUBSCRIBE
                self.close()
                raise redis.TimeoutError("Redis does not answer")

    def wait(self, seconds: float) -> bool:
        """Return True once something was published since the last call, or False after `seconds`.

        Raise `ConnectionClosed` if the connection breaks, or if Redis does not answer during two calls after it was silent for
        `BrokerIntervals.ping`: what is published until there is another connection is lost.
        """
        with self._in_use, _dramatiq_errors(redis.RedisError):
            return self._wait_until(time.monotonic() + seconds)

    def _wait_until(self, end: float) -> bool:
        while self._pubsub.get_message(timeout=max(0.0, end - time.monotonic())) is None:  # also after an answer to a PING
            if time.monotonic() >= end:
                if self._pubsub.health_check_response_counter > 1:  # PINGs that were not answered
                    raise redis.TimeoutError("Redis does not answer")
                return False
        while self._pubsub.get_message() is not None:  # one call of the caller's handles them all
            pass
        return True

    def close(self) -> None:
        """Close the connection, once a thread that waits in `wait` has returned."""
        with self._in_use:
            self._pubsub.close()


def make_redis_broker(url: str, intervals: BrokerIntervals) -> "NotifyingRedisBroker":
    """Return a broker whose threads share a few connections."""
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=intervals.connection_wait,
        socket_connect_timeout=intervals.connect,
        socket_timeout=intervals.answer,
        health_check_interval=intervals.ping,
        retry=Retry(NoBackoff(), 0),
    )
    return NotifyingRedisBroker(redis.Redis.from_pool(pool), intervals)


class NotifyingRedisBroker(RedisBroker):
    """A broker that publishes the name of the queue with each message."""

    def __init__(self, client: "redis.Redis", intervals: BrokerIntervals) -> None:
        super().__init__(client=client, middleware=[], namespace=_NAMESPACE)  # type: ignore[no-untyped-call]
        self._intervals = intervals

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        enqueued = super().enqueue(message, delay=delay)
        self.client.publish(_channel(message.queue_name), b"")
        return enqueued

    def publish(self, topic: str) -> None:
        """Wake those who wait for this topic now. Raise `ConnectionClosed` if Redis does not answer."""
        with _dramatiq_errors(redis.RedisError):
            self.client.publish(_channel(topic), b"")

    def subscribe(self, topic: str, intervals: BrokerIntervals) -> Subscription:
        """Return a new subscription. Raise `ConnectionClosed` if Redis does not answer."""
        return Subscription(self.client, topic, intervals)

    def evaluate(self, script: str, keys: list[str], arguments: list[float]) -> bytes:
        """Return what a script answers. Raise `ConnectionClosed` if Redis does not answer."""
        with _dramatiq_errors(redis.RedisError):
            answer: bytes = self.client.register_script(script)([f"{_NAMESPACE}.{key}" for key in keys], arguments)
            return answer

    def ping(self) -> None:
        """Raise `ConnectionClosed` if Redis does not answer."""
        with _dramatiq_errors(redis.RedisError):
            self.client.ping()

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 0) -> Consumer:  # noqa: ARG002 - it has its own intervals
        return _WaitingConsumer(self, queue_name, prefetch, self._intervals)


class _WaitingConsumer(_RedisConsumer):
    """A consumer that waits until a message is announced. One whose announcement was lost is found a moment later."""

    def __init__(self, broker: NotifyingRedisBroker, queue_name: str, prefetch: int, intervals: BrokerIntervals) -> None:
        super().__init__(broker, queue_name, prefetch, timeout=0)  # type: ignore[no-untyped-call]
        self._intervals = intervals
        self._idle_until = float("-inf")
        self._subscription = broker.subscribe(queue_name, intervals)  # before the first look, so that none is missed

    def __next__(self) -> Any:
        """Return a message, or None from time to time: Dramatiq then checks whether it is to stop."""
        idle = self._idle_until - time.monotonic()
        if idle > 0:
            if self._subscription.wait(min(idle, self._intervals.stop_check)):
                self._idle_until = float("-inf")
            return None
        with _dramatiq_errors():
            message = super().__next__()  # type: ignore[no-untyped-call]
        if message is not None:
            return message
        if self.outstanding_message_count >= self.prefetch:  # it is not announced when a thread becomes free
            time.sleep(self._intervals.busy_poll)
        else:
            self._idle_until = time.monotonic() + self._intervals.idle_check
        return None

    def ack(self, message: MessageProxy) -> None:
        with _dramatiq_errors():
            super().ack(message)  # type: ignore[no-untyped-call]

    def nack(self, message: MessageProxy) -> None:
        with _dramatiq_errors():
            super().nack(message)  # type: ignore[no-untyped-call]

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        with _dramatiq_errors():
            super().requeue(messages)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self._subscription.close()


@contextmanager
def _dramatiq_errors(*errors: type[Exception]) -> Iterator[None]:
    """Raise Dramatiq's error instead of these, by default those of a connection that breaks or is silent.

    Its threads then try again. Dramatiq itself handles redis' `ConnectionError` only. `TimeoutError` does not inherit from it.
    """
    try:
        yield
    except errors or (redis.ConnectionError, redis.TimeoutError) as error:  # noqa: B030 - a tuple of classes
        raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]


def _channel(topic: str) -> str:
    return f"{_NAMESPACE}.{topic}"
