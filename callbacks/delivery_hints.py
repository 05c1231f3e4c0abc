"""Messages to deliverers that some stream may be due. A lost one only delays it: the relay polls for due streams.

They say nothing else: a deliverer looks for all streams that are due, so one message is enough for any number of them.
"""

from typing import Final

from django.db import connection, transaction

from orchestrator_site.base import notifications

TOPIC: Final = "deliveries"


def send() -> None:
    """Ask the deliverers to look for due streams."""
    notifications.notify(TOPIC)


def send_on_commit() -> None:
    """Ask the deliverers to look for due streams once the current transaction is committed."""
    if not any(waiting[1] is send for waiting in connection.run_on_commit):  # once for each transaction
        transaction.on_commit(send, robust=True)
