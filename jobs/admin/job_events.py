"""The events of a job on its page, some at a time, and who may send them again."""

from typing import Any, Final
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest

from callbacks.models import Event
from callbacks.operators import event_history
from callbacks.operators.subscribers import find_subscriber
from orchestrator_site.base.memberships.restriction import namespace_of_request

_ON_A_PAGE: Final = 20
_MAX_DIGITS: Final = 18  # of a sequence number
_STATES: Final = (("", "All"), *((state.value, state.label) for state in Event.State))


def page_for(request: HttpRequest, stream: UUID) -> dict[str, Any] | None:
    """Return what the template shows: the events `after` a sequence number, or only those in a `state`.

    Return None if the user may not see events. Raise `Http404` if there is no such page.
    """
    if not _may(request, "view"):
        return None
    after, state = request.GET.get("after", "0"), request.GET.get("state", "")
    if not (after.isascii() and after.isdigit() and len(after) <= _MAX_DIGITS) or state not in dict(_STATES):
        raise Http404("there is no such page of events")
    subscriber = find_subscriber(stream)
    if subscriber is None:
        return {"subscriber": None, "state": ""}
    page = event_history.page_of_events(stream, after=int(after), limit=_ON_A_PAGE, state=state or None)
    return {
        "subscriber": subscriber,
        "job": stream,
        "rows": page.events,
        "after": int(after),
        "unfinished": subscriber.unfinished,
        "next_after": page.next_after,
        "state": state,
        "states": _STATES,
        "can_redeliver": _may(request, "change"),
    }


def check_may_redeliver(request: HttpRequest) -> None:
    """Raise `PermissionDenied` if the user may not send events again."""
    if not (_may(request, "view") and _may(request, "change")):
        raise PermissionDenied


def _may(request: HttpRequest, act: str) -> bool:
    """Return whether the user may see (`view`) or redeliver (`change`) the events of the job.

    A user of one namespace may see no page of events, but those of a job on its page, if the user may do the same to the job.
    """
    thing = "callbacks.{}_event" if namespace_of_request(request) is None else "jobs.{}_job"
    return bool(request.user.has_perm(thing.format(act)))
