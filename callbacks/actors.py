"""What a message about deliveries sets going."""

import dramatiq

from callbacks import delivery, wake
from orchestrator_site.base.broker import broker


@dramatiq.actor(broker=broker, queue_name=wake.QUEUE, actor_name=wake.ACTOR)
def deliver(subscription_id: int) -> None:
    """Send what is due of a stream. May run twice, at the wrong time, or never."""
    delivery.drain(subscription_id)
