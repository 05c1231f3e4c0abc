"""What a message about deliveries sets going."""

import dramatiq

from callbacks import delivery_hints
from callbacks.delivery import stream_delivery
from orchestrator_site.base.broker import broker


@dramatiq.actor(broker=broker, queue_name=delivery_hints.QUEUE, actor_name=delivery_hints.ACTOR)
def deliver(subscription_id: int) -> None:
    """Send what is due of a stream. May run twice, at the wrong time, or never."""
    stream_delivery.drain(subscription_id)
