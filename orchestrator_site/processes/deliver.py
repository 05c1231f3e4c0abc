"""The part that sends events."""

import threading

from callbacks import delivery_hints
from callbacks.delivery.dispatcher import Dispatcher
from callbacks.delivery.stream_delivery import Deliverer
from orchestrator_site.base.intervals import DeliveryIntervals
from orchestrator_site.base.notifications import Listener


class DeliverProcess:
    """The part that sends events."""

    def __init__(self, intervals: DeliveryIntervals = DeliveryIntervals()) -> None:
        self._intervals = intervals

    def start(self, stopping: threading.Event) -> None:  # noqa: ARG002 - as all parts
        self._dispatcher = Dispatcher(Deliverer(self._intervals), self._intervals)
        self._listener = Listener(delivery_hints.TOPIC, self._dispatcher.wake)
        self._dispatcher.start()
        self._listener.start()

    def stop(self) -> None:
        """Abandon the requests that are not answered soon: another process sends these events again."""
        self._listener.stop()
        self._dispatcher.stop(self._intervals.stop)
