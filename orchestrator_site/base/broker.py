"""The Dramatiq broker: Redis in production, in this process when embedded.

A message is a hint: the rows say what is to be done, and `relay` finds rows whose message was lost. So without the broker
jobs and events are a second late, and no request fails.
"""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import dramatiq
from django.conf import settings
from dramatiq.brokers.stub import StubBroker

from orchestrator_site.base.config.configuration import Configuration
from orchestrator_site.base.intervals import BrokerIntervals
from orchestrator_site.base.message_threads import MessageThreads

if TYPE_CHECKING:
    from orchestrator_site.base.redis_broker import NotifyingRedisBroker, Subscription

logger = logging.getLogger(__name__)


def make_broker(configuration: Configuration, intervals: BrokerIntervals = BrokerIntervals()) -> dramatiq.Broker:
    """Return a broker without Dramatiq's retries, time limits and age limits, which are in the database instead."""
    if configuration.embedded:
        return StubBroker(middleware=[])
    from orchestrator_site.base.redis_broker import make_redis_broker  # 6 MB, which an embedded process does not need

    return make_redis_broker(configuration.redis_url, intervals)


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
_scripts = _Hints()


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
    return _hints.send(lambda: _redis_broker().publish(topic), topic=topic)


def subscribe(topic: str, intervals: BrokerIntervals = BrokerIntervals()) -> "Subscription":
    """Return a new subscription. Raise Dramatiq's `BrokerConnectionError` if Redis does not answer. Only with Redis."""
    return _redis_broker().subscribe(topic, intervals)


def ping() -> None:
    """Raise Dramatiq's `BrokerConnectionError` or `OSError` if the broker does not answer."""
    if not isinstance(broker, StubBroker):
        _redis_broker().ping()


def _redis_broker() -> "NotifyingRedisBroker":
    return cast("NotifyingRedisBroker", broker)


def make_worker(queues: set[str], threads: int, intervals: BrokerIntervals = BrokerIntervals()) -> MessageThreads:
    """Return at most `threads` threads that consume `queues` once they are started."""
    for queue in queues:
        broker.declare_queue(queue)
    return MessageThreads(broker, queues, threads, intervals)


def evaluate(script: str, keys: list[str], arguments: list[float]) -> bytes | None:
    """Return what a script answers in Redis, None if Redis does not answer. Failures are logged. Only with Redis."""
    answers: list[bytes] = []
    _scripts.send(lambda: answers.append(_redis_broker().evaluate(script, keys, arguments)), script=keys[0].partition(".")[0])
    return answers[0] if answers else None
