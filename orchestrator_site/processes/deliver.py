"""The part that sends events."""

import threading

from callbacks import delivery_hints
from callbacks.delivery import actors as delivery_actors
from callbacks.delivery.stream_delivery import Deliverer
from callbacks.delivery.thread_limiter import THREADS
from orchestrator_site.base.broker import make_worker
from orchestrator_site.base.intervals import BrokerIntervals


class DeliverProcess:
    """The part that sends events."""

    def __init__(self, intervals: BrokerIntervals = BrokerIntervals()) -> None:
        self._intervals = intervals

    def start(self, stopping: threading.Event) -> None:  # noqa: ARG002 - as all parts
        self._deliverer = Deliverer()
        delivery_actors.attach(self._deliverer)
        self._threads = make_worker({delivery_hints.QUEUE}, THREADS)
        self._threads.start()

    def stop(self) -> None:
        """Abandon the requests that are not answered soon: another process sends these events again."""
        self._deliverer.stop()
        self._threads.stop(timeout=round(self._intervals.stop * 1000))
        self._deliverer.release_leases()
