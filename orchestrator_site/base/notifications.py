"""Notifications that something has happened, for listeners in all processes of the service.

A notification is a hint and may be lost: a process that listens looks at the rows when it is woken, and also from time to time.
In embedded mode they stay in the process, where none is lost.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable

from django.conf import settings
from dramatiq.errors import BrokerConnectionError

from orchestrator_site.base import broker
from orchestrator_site.base.intervals import BrokerIntervals

logger = logging.getLogger(__name__)

_local: defaultdict[str, list[Callable[[], object]]] = defaultdict(list)  # in embedded mode: what to call, by topic


def notify(topic: str) -> None:
    """Wake the listeners of a topic. Failures are logged and never raised."""
    if not settings.CONFIGURATION.embedded:
        broker.publish(topic)
        return
    for wake in list(_local[topic]):
        wake()


class Listener:
    """Calls `wake` after notifications of a topic, from `start` to `stop`.

    Also after it has connected to Redis, because some may have been lost. Several notifications may lead to one call.
    `wake` must return at once (it sets an event, say): others wait for it.
    """

    def __init__(self, topic: str, wake: Callable[[], object], intervals: BrokerIntervals = BrokerIntervals()) -> None:
        self._topic = topic
        self._wake = wake
        self._intervals = intervals
        self._stopping = threading.Event()

    def start(self) -> None:
        if settings.CONFIGURATION.embedded:
            _local[self._topic].append(self._wake)
        else:
            threading.Thread(target=self._listen_until_stopped, name=f"listener {self._topic}", daemon=True).start()

    def stop(self) -> None:
        """Stop soon. Does not wait for the thread."""
        self._stopping.set()
        if settings.CONFIGURATION.embedded:
            _local[self._topic].remove(self._wake)

    def _listen_until_stopped(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except (BrokerConnectionError, OSError) as error:
                logger.warning("notifications are not received: %s", error, extra={"topic": self._topic})
                self._stopping.wait(self._intervals.retry)

    def _listen(self) -> None:
        subscription = broker.subscribe(self._topic, self._intervals)
        try:
            self._wake()
            while not self._stopping.is_set():
                if subscription.wait(self._intervals.listen):
                    self._wake()
        finally:
            subscription.close()
