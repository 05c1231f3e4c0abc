"""The events of a job on its page, some at a time, and who may send them again."""

from typing import Any, Final
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest

from callbacks.models import Event
from callbacks.operators import event_history
from callbacks.operators.subscribers import find_subscriber

_ON_A_PAGE: Final = 20
_MAX_DIGITS: Final = 18  # of a sequence number
_STATES: Final = (("", "All"), *((state.value, state.label) for state in Event.State))


def page_for(request: HttpRequest, stream: UUID) -> dict[str, Any] | None:
    """Return what the template shows: the events `after` a sequence number, or only those in a `state`.

    Return None if the user may not see events. Raise `Http404` if there is no such page.
    """
    options = _admin_of_events()
    if not options.has_view_permission(request):
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
        "can_redeliver": options.has_operate_permission(request),
    }


def check_may_redeliver(request: HttpRequest) -> None:
    """Raise `PermissionDenied` if the user may not send events again."""
    options = _admin_of_events()
    if not (options.has_view_permission(request) and options.has_operate_permission(request)):
        raise PermissionDenied


def _admin_of_events() -> Any:
    return admin.site.get_model_admin(Event)
