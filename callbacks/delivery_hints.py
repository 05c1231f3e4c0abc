"""Messages to deliverers that a stream may be due. A lost one only delays the stream: the relay polls for due streams."""

from functools import partial
from typing import Final

from django.db import transaction

from orchestrator_site.base.broker import hint

QUEUE: Final = "deliveries"
ACTOR: Final = "deliver"


def send(subscription_id: int) -> None:
    """Ask a deliverer to look at this stream."""
    hint(QUEUE, ACTOR, subscription_id)


def send_on_commit(subscription_id: int) -> None:
    """Ask a deliverer to look at this stream once the current transaction is committed."""
    transaction.on_commit(partial(send, subscription_id), robust=True)
