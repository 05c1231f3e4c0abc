"""What a message about deliveries sets going."""

import dramatiq

from callbacks.delivery import drain
from callbacks.outbox import ACTOR, QUEUE
from orchestrator_site.broker import broker, hint

__all__ = ["QUEUE", "deliver"]


@dramatiq.actor(broker=broker, queue_name=QUEUE, actor_name=ACTOR)
def deliver(subscription_id: int) -> None:
    """Send what is due of a stream. May run twice, at the wrong time, or never."""
    if drain(subscription_id):
        hint(QUEUE, ACTOR, subscription_id)  # to the end of the queue: others wait too
