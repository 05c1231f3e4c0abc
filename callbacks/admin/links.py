"""Links between the pages of events, subscriptions, destinations and jobs."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString

from callbacks.delivery import destination_rows
from callbacks.models import Event, Subscription
from callbacks.operators import destinations
from orchestrator_site.base.admin_elements import link, once


def to_job(subscription: Subscription) -> SafeString:
    """Link to the page of the job that the events of a subscription are about: a job's stream has the UUID of the job."""
    return link(reverse("admin:jobs_job_change", args=(subscription.stream,)), subscription.subject)


def to_event(event: Event, text: str) -> SafeString:
    return link(reverse("admin:callbacks_event_change", args=(event.pk,)), text)


def to_destination(destination: Any) -> SafeString:
    """Link to the page of a destination, with its condition, which often says why events are not delivered."""
    address = reverse("admin:callbacks_destination_change", args=(destination.pk,))
    return link(address, f"{destination.origin} ({destinations.condition(destination)})")


def destination_of(subscription: Subscription) -> Any:
    """Return the destination of a subscription, with the time of the database as `now`."""
    return once(subscription, _read_destination)


def _read_destination(subscription: Subscription) -> Any:
    return destination_rows.with_database_time().get(pk=subscription.destination_id)


def without_events(request: HttpRequest, fieldsets: Any, *fields: str) -> Any:
    """Return the groups of fields of a page, without fields that show events if the user may not see them."""
    if admin.site.get_model_admin(Event).has_view_permission(request):
        return fieldsets
    left = [(title, tuple(name for name in options["fields"] if name not in fields)) for title, options in fieldsets]
    return [(title, {"fields": names}) for title, names in left if names]
