"""The Dramatiq actor that delivers streams. Messages carry a stream's id only: its row says what is due."""

import dramatiq

from callbacks import delivery_hints
from callbacks.delivery.stream_delivery import Deliverer
from orchestrator_site.base.broker import broker

_deliverer: Deliverer | None = None


def attach(deliverer: Deliverer | None) -> None:
    """Set the deliverer that this process's actor uses."""
    global _deliverer
    _deliverer = deliverer


@dramatiq.actor(broker=broker, queue_name=delivery_hints.QUEUE, actor_name=delivery_hints.ACTOR)
def deliver(subscription_id: int) -> None:
    """Deliver what is due of a stream. May run twice, at the wrong time, or never."""
    if _deliverer is not None:
        _deliverer.deliver(subscription_id)
