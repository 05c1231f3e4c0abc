"""Messages that say which stream to look at. They are hints: the relay finds what none came for."""

from functools import partial
from typing import Final

from django.db import transaction

from orchestrator_site.base.broker import hint

QUEUE: Final = "deliveries"
ACTOR: Final = "deliver"


def deliverer(subscription_id: int) -> None:
    """Have somebody look at this stream."""
    hint(QUEUE, ACTOR, subscription_id)


def deliverer_on_commit(subscription_id: int) -> None:
    """Do so once the transaction is committed."""
    transaction.on_commit(partial(deliverer, subscription_id), robust=True)
