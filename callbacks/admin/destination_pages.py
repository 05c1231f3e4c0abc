"""The list of destinations and the page of each, with what operators do about breakers and throttling."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.defaultfilters import pluralize
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminSplitDateTimeVerticalWidget

from callbacks.admin import links
from callbacks.admin.explanation import Explanation, explain_destination, last_attempt
from callbacks.delivery import destination_rows
from callbacks.models import Destination, Event
from callbacks.operators import destinations, redelivery, undelivered
from orchestrator_site.base import operator_log
from orchestrator_site.base.admin_elements import back_to, button, label, moment, named_field, once, yes_or_no
from orchestrator_site.base.large_lists import LargeList

_MAX_NAMED: Final = 5  # destinations listed in a message


@admin.register(Destination)
class DestinationAdmin(LargeList, ModelAdmin):  # type: ignore[misc]
    list_display = ("origin", "condition", "in_a_row", "opens", "unthrottled", "queue")
    list_filter = ("paused",)
    search_fields = ("origin",)  # see `get_search_results`
    search_help_text = "A URL, or the beginning of a host's name"
    ordering = ("origin",)
    in_a_row = named_field("failures", "Failures in a row")
    opens = moment("open_until", "Breaker open until")
    probe = moment("probe_until", "Probe counts as dead")
    unthrottled = moment("throttled_until", "Throttled until")
    unlimited = moment("limited_until", "At its limit until")
    used = moment("used_at", "Last used")
    actions = ("pause_selected", "resume_selected", "reset_selected")
    actions_detail = ("pause", "resume", "reset", "redeliver")
    fieldsets = (
        (None, {"fields": ("origin", "condition", "why", "what_to_do", "load", "redeliveries", "used")}),
        ("Not delivered", {"fields": ("next_events", "last_dead")}),
        ("Breaker", {"fields": ("in_a_row", "openings", "opens", "probe")}),
        ("Concurrency and throttling", {"fields": ("concurrency", "throttles", "unthrottled", "unlimited")}),
    )

    class RedeliverForm(BaseDialogForm):  # type: ignore[misc]
        since = forms.SplitDateTimeField(label="Dead since", widget=UnfoldAdminSplitDateTimeVerticalWidget, help_text="UTC")

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.fields["since"].initial = timezone.now().replace(microsecond=0) - timedelta(days=1)

    def get_fieldsets(self, request: HttpRequest, destination: Destination | None = None) -> Any:
        return links.without_events(request, super().get_fieldsets(request, destination), "next_events", "last_dead")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Destination]:
        rows: QuerySet[Destination] = super().get_queryset(request)
        return destination_rows.with_database_time(rows)

    def get_search_results(
        self, _request: HttpRequest, queryset: QuerySet[Destination], search: str
    ) -> tuple[QuerySet[Destination], bool]:
        """Find origins by how they begin, which has an index; a part in the middle would be looked for in all rows."""
        text = search.strip()
        return queryset.filter(destinations.named(text)) if text else queryset, False

    @label(
        "State",
        {
            "paused": "warning",
            "throttled": "warning",
            "at its limit": "warning",
            "breaker open": "danger",
            "breaker half open": "warning",
            "slow": "warning",
            "healthy": "success",
        },
    )
    def condition(self, destination: Destination) -> str:
        return destinations.condition(destination)

    @admin.display(description="What happens")
    def why(self, destination: Destination) -> str:
        return once(destination, _explain).sentence

    @admin.display(description="What to do")
    def what_to_do(self, destination: Destination) -> str | None:
        return once(destination, _explain).advice or None

    @admin.display(description="Next events to send")
    def next_events(self, destination: Destination) -> SafeString | None:
        return _links_to(once(destination, undelivered.next_events))

    @admin.display(description="Events that died last")
    def last_dead(self, destination: Destination) -> SafeString | None:
        return _links_to(once(destination, undelivered.last_dead))

    @admin.display(description="Deliveries at once")
    def concurrency(self, destination: Destination) -> int:
        return destinations.max_in_flight(destination)

    @admin.display(description="Events wait for it")
    def queue(self, destination: Destination) -> str:
        return yes_or_no(destination.waiting)

    @admin.display(description="Redeliveries")
    def redeliveries(self, destination: Destination) -> str | None:
        since, until = destination.revive_since, destination.revive_until
        return f"in progress: events dead since {since:%Y-%m-%d %H:%M:%S} UTC" if since and until else None

    @admin.display(description="Load")
    def load(self, destination: Destination) -> str:
        load = destinations.load(destination)
        more = " or more" if load.waiting == destinations.MAX_WAITING_COUNTED else ""
        return (
            f"{load.in_flight} deliver{pluralize(load.in_flight, 'y,ies')} in flight, "
            f"{load.waiting}{more} stream{pluralize(load.waiting)} waiting"
        )

    # -- actions ----------------------------------------------------------------------------------------

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Return the buttons of a destination's page: of the two that pause and resume it, the one that changes something."""
        without = "pause" if Destination.objects.filter(pk=object_id, paused=True).exists() else "resume"
        return [action for action in super().get_actions_detail(request, object_id) if action.path != without]

    @button("Pause", "Stops deliveries until the destination is resumed. Events still expire after 24 hours.")
    def pause(self, request: HttpRequest, _form: BaseDialogForm, object_id: str) -> HttpResponse:
        return self._do(request, destinations.pause, object_id, "paused")

    @button("Resume", "Starts deliveries again; the streams that have waited longest come first.")
    def resume(self, request: HttpRequest, _form: BaseDialogForm, object_id: str) -> HttpResponse:
        return self._do(request, destinations.resume, object_id, "resumed")

    @button("Reset", "Closes the breaker, ends throttling, and retries unanswered events now.")
    def reset(self, request: HttpRequest, _form: BaseDialogForm, object_id: str) -> HttpResponse:
        return self._do(request, destinations.reset, object_id, "marked as healthy")

    @button("Redeliver", "Sends the dead events of all jobs again, in order within each job.", RedeliverForm)
    def redeliver(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        since = form.cleaned_data["since"]
        destination = get_object_or_404(Destination, pk=object_id)
        operator_log.record(request, [destination], f"Redelivers what died since {since:%Y-%m-%d %H:%M:%S} UTC")
        has_dead = redelivery.has_dead(destination.pk, since)
        redelivery.request_redelivery(destination.pk, since)
        if has_dead:
            messages.success(request, "Events that died since then will be sent again.")
        else:
            messages.warning(request, "Nothing is sent again: none of its events has died since then.")
        return back_to(self, object_id)

    @admin.action(description="Pause", permissions=["operate"])
    def pause_selected(self, request: HttpRequest, rows: QuerySet[Destination]) -> None:
        self._act(request, destinations.pause, self.chosen(request, rows), "paused")

    @admin.action(description="Resume", permissions=["operate"])
    def resume_selected(self, request: HttpRequest, rows: QuerySet[Destination]) -> None:
        self._act(request, destinations.resume, self.chosen(request, rows), "resumed")

    @admin.action(description="Reset", permissions=["operate"])
    def reset_selected(self, request: HttpRequest, rows: QuerySet[Destination]) -> None:
        self._act(request, destinations.reset, self.chosen(request, rows), "marked as healthy")

    def _do(self, request: HttpRequest, act: Callable[[int], bool], object_id: str, done: str) -> HttpResponse:
        self._act(request, act, [get_object_or_404(Destination, pk=object_id)], done)
        return back_to(self, object_id)

    @staticmethod
    def _act(request: HttpRequest, act: Callable[[int], bool], chosen: list[Destination], done: str) -> None:
        """Act on the destinations, and say for how many that was so: they may be deleted at any time."""
        operator_log.record(request, chosen, done.capitalize())
        changed = [str(destination) for destination in chosen if act(destination.pk)]
        if changed:
            names = ", ".join(changed) if len(changed) <= _MAX_NAMED else f"{len(changed)} destinations"
            messages.success(request, f"{names}: {done}")
        if deleted := len(chosen) - len(changed):
            messages.warning(request, f"{deleted} destination{pluralize(deleted)} had been deleted meanwhile.")


def _explain(destination: Destination) -> Explanation:
    attempts = [last_attempt(event) for event in once(destination, undelivered.next_events)]
    last = max((attempt for attempt in attempts if attempt), key=lambda attempt: attempt.time, default=None)
    return explain_destination(destination, last)


def _links_to(events: list[Event]) -> SafeString | None:
    found = [(links.to_event(event, str(event)), links.to_job(event.subscription)) for event in events]
    return format_html_join("", "<div>{} of {}</div>", found) if found else None
