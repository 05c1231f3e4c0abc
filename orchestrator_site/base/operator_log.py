"""Records what operators do: in Django's table of admin actions, which the admin shows, and in the service's log."""

import logging
from collections.abc import Sequence
from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import Model
from django.http import HttpRequest

logger = logging.getLogger(__name__)


def record(request: HttpRequest, rows: Sequence[Model], action: str) -> None:
    """Record that the user of a request is about to do something to each of some rows.

    Call it before the action: if the process is killed in between, an action without effect is recorded, but none is missing.

    Args:
        request: Of a user who has logged in.
        rows: Their names must not contain secrets.
        action: What the user does, as a short sentence. It must not contain secrets either.
    """
    if not rows:
        return
    user: Any = request.user
    LogEntry.objects.log_actions(user.pk, rows, CHANGE, action)
    for row in rows:
        kind = row._meta.verbose_name
        logger.info(
            "an operator acts", extra={"user": user.get_username(), "action": action, "kind": str(kind), "object": str(row)}
        )
