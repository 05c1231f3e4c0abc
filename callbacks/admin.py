"""Admin pages for destinations, subscriptions and events with their attempts.

Rows are read-only. Actions need the permission to change the model and use POST. Keys and the secret parts of URLs are not shown.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import display_for_value
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.defaultfilters import pluralize
from django.utils import timezone
from django.utils.html import format_html
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminSplitDateTimeVerticalWidget

from callbacks.delivery import destination_rows
from callbacks.models import Attempt, Destination, Event, Subscription
from callbacks.operators import destinations, redelivery
from orchestrator_site.base import operator_log
from orchestrator_site.base.admin_elements import back_to, button, label
from orchestrator_site.base.egress.http_client import redact
from orchestrator_site.base.read_only_admin import ReadOnly

_MAX_NAMED: Final = 5  # destinations listed in a message


def _field(name: str, label: str) -> Callable[[ModelAdmin, Any], str]:
    """Return a column that shows a field of the model under another label."""

    @admin.display(description=label, ordering=name)
    def column(page: ModelAdmin, row: Any) -> str:
        return display_for_value(getattr(row, name), page.get_empty_value_display())

    return column


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


def _report_redelivery(request: HttpRequest, count: int) -> None:
    messages.success(request, f"{count} event{pluralize(count)} will be sent again.")


@admin.register(Destination)
class DestinationAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("origin", "condition", "failures", "open_until", "throttled_until", "concurrency", "queue")
    list_filter = ("paused",)
    search_fields = ("origin",)
    show_full_result_count = False
    ordering = ("origin",)
    actions = ("pause_selected", "resume_selected", "reset_selected")
    actions_detail = ("pause", "resume", "reset", "redeliver")
    fieldsets = (
        (None, {"fields": ("origin", "condition", "load", "redeliveries", "used_at")}),
        ("Breaker", {"fields": ("failures", "openings", "open_until", "probe_until")}),
        ("Concurrency and throttling", {"fields": ("concurrency", "throttles", "throttled_until")}),
    )

    class RedeliverForm(BaseDialogForm):  # type: ignore[misc]
        since = forms.SplitDateTimeField(label="Dead since", widget=UnfoldAdminSplitDateTimeVerticalWidget, help_text="UTC")

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.fields["since"].initial = timezone.now().replace(microsecond=0) - timedelta(days=1)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Destination]:
        rows: QuerySet[Destination] = super().get_queryset(request)
        return destination_rows.with_database_time(rows)

    @label(
        "State",
        {
            "paused": "warning",
            "throttled": "warning",
            "breaker open": "danger",
            "breaker half open": "warning",
            "slow": "warning",
            "healthy": "success",
        },
    )
    def condition(self, destination: Destination) -> str:
        return destinations.condition(destination)

    @admin.display(description="Concurrency")
    def concurrency(self, destination: Destination) -> int:
        return destinations.max_in_flight(destination)

    @admin.display(description="Streams waiting", ordering="waiting")
    def queue(self, destination: Destination) -> str:
        return _yes_or_no(destination.waiting)

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
        redelivery.request_redelivery(destination.pk, since)
        messages.success(request, "Events that died since then will be sent again.")
        return back_to(self, object_id)

    @admin.action(description="Pause", permissions=["operate"])
    def pause_selected(self, request: HttpRequest, rows: QuerySet[Destination]) -> None:
        self._do_all(request, destinations.pause, rows, "paused")

    @admin.action(description="Resume", permissions=["operate"])
    def resume_selected(self, request: HttpRequest, rows: QuerySet[Destination]) -> None:
        self._do_all(request, destinations.resume, rows, "resumed")

    @admin.action(description="Reset", permissions=["operate"])
    def reset_selected(self, request: HttpRequest, rows: QuerySet[Destination]) -> None:
        self._do_all(request, destinations.reset, rows, "marked as healthy")

    def _do(self, request: HttpRequest, act: Callable[[int], None], object_id: str, done: str) -> HttpResponse:
        self._do_all(request, act, Destination.objects.filter(pk=object_id), done)
        return back_to(self, object_id)

    @staticmethod
    def _do_all(request: HttpRequest, act: Callable[[int], None], rows: QuerySet[Destination], done: str) -> None:
        chosen = list(rows)
        operator_log.record(request, chosen, done.capitalize())
        for destination in chosen:
            act(destination.pk)
        names = ", ".join(str(destination) for destination in chosen)
        messages.success(request, f"{names if len(chosen) <= _MAX_NAMED else f'{len(chosen)} destinations'}: {done}")


@admin.register(Subscription)
class SubscriptionAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("job", "destination", "last_sequence", "next_attempt_at", "waiting_since")
    list_select_related = ("destination",)
    search_fields = ("=subject",)
    show_full_result_count = False
    ordering = ("-id",)
    actions_detail = ("redeliver_dead",)
    fieldsets = (
        (None, {"fields": ("job", "stream", "url_shown", "signed", "types_shown", "destination")}),
        ("Delivery", {"fields": ("last_sequence", "log_refused", "next_attempt_at", "waiting_since", "lease_until")}),
    )
    job = _field("subject", "Job")

    @admin.display(description="Event types")
    def types_shown(self, subscription: Subscription) -> str:
        return ", ".join(subscription.types) or "all"

    @admin.display(description="Last log event refused")
    def log_refused(self, subscription: Subscription) -> str:
        return _yes_or_no(subscription.bulk_refused)

    @admin.display(description="URL")
    def url_shown(self, subscription: Subscription) -> str:
        return redact(subscription.url)

    @admin.display
    def signed(self, subscription: Subscription) -> str:
        return _yes_or_no(subscription.key is not None)

    @button("Redeliver dead events", "Sends all dead events of this job again, in order and with the same ids.")
    def redeliver_dead(self, request: HttpRequest, _form: BaseDialogForm, object_id: str) -> HttpResponse:
        subscription = get_object_or_404(
            Subscription.objects.only("stream", "subject", "destination__origin").select_related("destination"), pk=object_id
        )
        operator_log.record(request, [subscription], "Redelivers its dead events")
        _report_redelivery(request, redelivery.redeliver_dead(subscription.stream))
        return back_to(self, object_id)


class AttemptInline(ReadOnly, TabularInline):  # type: ignore[misc]
    model = Attempt
    extra = 0
    hide_title = True
    fields = ("began", "status", "latency", "error", "answer")
    readonly_fields = ("began", "latency")
    latency = _field("latency_ms", "Latency (ms)")

    @admin.display(description="Time (UTC)")
    def began(self, attempt: Attempt) -> str:
        return format_html('<span class="whitespace-nowrap">{}</span>', f"{attempt.time:%Y-%m-%d %H:%M:%S}")


@admin.register(Event)
class EventAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("identity", "short_type", "subject", "sequence", "state_shown", "tries", "next_attempt_at")
    list_filter = ("state", "type")
    list_select_related = ("subscription__destination",)
    search_fields = ("=subscription__subject",)
    show_full_result_count = False
    ordering = ("-id",)
    inlines = (AttemptInline,)
    actions = ("redeliver_selected",)
    actions_detail = ("redeliver",)
    fieldsets = (
        (None, {"fields": ("identity", "type", "source", "subscription", "sequence", "time")}),
        ("Delivery", {"fields": ("state_shown", "tries", "unanswered", "next_attempt_at", "settled_at", "expires_at")}),
    )
    identity = _field("id", "ID")
    unanswered = _field("silences", "Unanswered attempts in a row")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        rows: QuerySet[Event] = super().get_queryset(request)
        return rows.defer("body", *(f"subscription__{name}" for name in Subscription.SECRETS))

    @admin.display(description="Type", ordering="type")
    def short_type(self, event: Event) -> str:
        return event.type.removeprefix("orchestrator.job.")

    @admin.display(description="Job")
    def subject(self, event: Event) -> str:
        return event.subscription.subject

    @label("State", {"pending": "info", "delivered": "success", "dead": "danger"}, ordering="state")
    def state_shown(self, event: Event) -> str:
        return event.state

    @button("Redeliver", "Sends the event again with the same id. A pending event is tried now.")
    def redeliver(self, request: HttpRequest, _form: BaseDialogForm, object_id: str) -> HttpResponse:
        self._redeliver(request, self.get_queryset(request).select_related("subscription").filter(pk=UUID(object_id)))
        return back_to(self, object_id)

    @admin.action(description="Redeliver", permissions=["operate"])
    def redeliver_selected(self, request: HttpRequest, rows: QuerySet[Event]) -> None:
        self._redeliver(request, rows)

    @staticmethod
    def _redeliver(request: HttpRequest, rows: QuerySet[Event]) -> None:
        chosen = list(rows)
        operator_log.record(request, chosen, "Redelivered")
        _report_redelivery(request, sum(redelivery.redeliver(event.subscription.stream, event.pk) for event in chosen))
