"""Destinations, streams, events and their attempts: to look at, and what an operator may do about deliveries.

Neither keys nor the secret parts of URLs are shown. What is done goes by POST and asks for the right to change.
"""

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action, display
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminSplitDateTimeVerticalWidget

from callbacks.models import Attempt, Destination, Event, Subscription
from callbacks.operators import destinations, redelivery
from callbacks.rules import destination_breaker
from orchestrator_site.base.egress.http_client import redact
from orchestrator_site.base.read_only_admin import ReadOnly

_NAMED: Final = 5  # destinations in a message
Method = TypeVar("Method", bound=Callable[..., Any])


def _button(title: str, description: str, form: type[BaseDialogForm] | None = None) -> Callable[[Method], Method]:
    """A button on a row's page that says what it will do, asks, and then posts."""
    dialog = {"title": title, "description": description, "form_class": form, "form_submit_text": title}
    decorator: Callable[[Method], Method] = action(description=title, permissions=["operate"], dialog=dialog)
    return decorator


def _label(description: str, colours: dict[str, str], ordering: str | None = None) -> Callable[[Method], Method]:
    decorator: Callable[[Method], Method] = display(description=description, label=colours, ordering=ordering)
    return decorator


def _back_to(page: ModelAdmin, identity: object) -> HttpResponse:
    """Close the dialog and show the row as it now is."""
    options = page.model._meta
    address = reverse(f"admin:{options.app_label}_{options.model_name}_change", args=(identity,))
    return HttpResponse(headers={"HX-Redirect": address})


@admin.register(Destination)
class DestinationAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("origin", "condition", "failures", "open_until", "throttled_until", "at_once", "streams_wait")
    list_filter = ("paused",)
    search_fields = ("origin",)
    show_full_result_count = False
    ordering = ("origin",)
    actions = ("pause_selected", "resume_selected", "reset_selected")
    actions_detail = ("pause", "resume", "reset", "redeliver")
    fieldsets = (
        (None, {"fields": ("origin", "condition", "load", "sent_again", "used_at")}),
        ("Breaker", {"fields": ("failures", "openings", "open_until", "probe_until")}),
        ("Pace", {"fields": ("at_once", "throttles", "throttled_until")}),
    )

    class RedeliverForm(BaseDialogForm):  # type: ignore[misc]
        since = forms.SplitDateTimeField(label="Died since", widget=UnfoldAdminSplitDateTimeVerticalWidget, help_text="UTC")

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.fields["since"].initial = timezone.now().replace(microsecond=0) - timedelta(days=1)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Destination]:
        rows: QuerySet[Destination] = super().get_queryset(request)
        return destinations.destinations(rows)

    @_label(
        "Condition",
        {
            "paused": "warning",
            "throttled": "warning",
            "open": "danger",
            "half open": "warning",
            "slow": "warning",
            "well": "success",
        },
    )
    def condition(self, destination: Any) -> str:
        if destination.paused:
            return "paused"
        if destination.throttled_until is not None and destination.throttled_until > destination.now:
            return "throttled"
        state = destination_breaker.state(destination, destination.now)
        if state != destination_breaker.BreakerState.CLOSED:
            return state.replace("_", " ")
        return "slow" if destination_breaker.is_slow(destination) else "well"

    @admin.display(description="Deliveries at once")
    def at_once(self, destination: Destination) -> int:
        return destinations.max_in_flight(destination)

    @admin.display(description="Streams wait")
    def streams_wait(self, destination: Destination) -> str | None:
        return "yes" if destination.waiting else None

    @admin.display(description="Sent again")
    def sent_again(self, destination: Destination) -> str | None:
        since, until = destination.revive_since, destination.revive_until
        return f"what died from {since:%Y-%m-%d %H:%M:%S} to {until:%Y-%m-%d %H:%M:%S} UTC" if since and until else None

    @admin.display(description="Load")
    def load(self, destination: Destination) -> str:
        load = destinations.load(destination)
        more = " or more" if load.waiting == destinations.MAX_WAITING_COUNTED else ""
        return f"{load.in_flight} under way, {load.waiting}{more} waiting"

    # -- what may be done about one ---------------------------------------------------------------------

    @_button("Pause", "Nothing is sent there until it is resumed. Events still die 24 hours after they happened.")
    def pause(self, request: HttpRequest, _form: BaseDialogForm, object_id: str) -> HttpResponse:
        return self._do(request, destinations.pause, object_id, "paused")

    @_button("Resume", "What waits is sent, the oldest first.")
    def resume(self, request: HttpRequest, _form: BaseDialogForm, object_id: str) -> HttpResponse:
        return self._do(request, destinations.resume, object_id, "resumed")

    @_button("Reset", "Closes the breaker, forgets a 429, and tries at once what the host left unanswered.")
    def reset(self, request: HttpRequest, _form: BaseDialogForm, object_id: str) -> HttpResponse:
        return self._do(request, destinations.reset, object_id, "taken for well")

    @_button("Redeliver", "Sends dead events of all jobs again, in order within each job.", RedeliverForm)
    def redeliver(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        redelivery.request_redelivery(int(object_id), form.cleaned_data["since"])
        messages.success(request, "What died there since then will be sent again.")
        return _back_to(self, object_id)

    @admin.action(description="Pause", permissions=["operate"])
    def pause_selected(self, request: HttpRequest, rows: QuerySet[Destination]) -> None:
        self._do_all(request, destinations.pause, rows, "paused")

    @admin.action(description="Resume", permissions=["operate"])
    def resume_selected(self, request: HttpRequest, rows: QuerySet[Destination]) -> None:
        self._do_all(request, destinations.resume, rows, "resumed")

    @admin.action(description="Reset", permissions=["operate"])
    def reset_selected(self, request: HttpRequest, rows: QuerySet[Destination]) -> None:
        self._do_all(request, destinations.reset, rows, "taken for well")

    def _do(self, request: HttpRequest, act: Callable[[int], None], object_id: str, done: str) -> HttpResponse:
        self._do_all(request, act, Destination.objects.filter(pk=object_id), done)
        return _back_to(self, object_id)

    @staticmethod
    def _do_all(request: HttpRequest, act: Callable[[int], None], rows: QuerySet[Destination], done: str) -> None:
        chosen = list(rows)
        for destination in chosen:
            act(destination.pk)
        messages.success(
            request, f"{', '.join(str(one) for one in chosen[:5])}: {done}" if len(chosen) <= 5 else f"{len(chosen)} {done}"
        )


@admin.register(Subscription)
class SubscriptionAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("subject", "destination", "last_sequence", "next_attempt_at", "waiting_since")
    list_select_related = ("destination",)
    search_fields = ("=subject",)
    show_full_result_count = False
    ordering = ("-id",)
    actions_detail = ("redeliver_dead",)
    fieldsets = (
        (None, {"fields": ("subject", "stream", "url_shown", "signed", "types", "destination")}),
        ("Delivery", {"fields": ("last_sequence", "bulk_refused", "next_attempt_at", "waiting_since", "lease_until")}),
    )

    @admin.display(description="URL")
    def url_shown(self, subscription: Subscription) -> str:
        return redact(subscription.url)

    @admin.display(boolean=True)
    def signed(self, subscription: Subscription) -> bool:
        return subscription.key is not None

    @_button("Redeliver dead events", "All dead events of this stream are sent again, in order, under the same ids.")
    def redeliver_dead(self, request: HttpRequest, _form: BaseDialogForm, object_id: str) -> HttpResponse:
        subscription = get_object_or_404(Subscription.objects.only("stream"), pk=object_id)
        messages.success(request, f"{redelivery.redeliver_dead(subscription.stream)} events will be sent again.")
        return _back_to(self, object_id)


class AttemptInline(ReadOnly, TabularInline):  # type: ignore[misc]
    model = Attempt
    extra = 0
    hide_title = True
    fields = ("began", "status", "latency_ms", "error", "answer")
    readonly_fields = ("began",)

    @admin.display(description="Time (UTC)")
    def began(self, attempt: Attempt) -> str:
        return format_html('<span class="whitespace-nowrap">{}</span>', f"{attempt.time:%Y-%m-%d %H:%M:%S}")


@admin.register(Event)
class EventAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("id", "short_type", "subject", "sequence", "state_shown", "tries", "next_attempt_at")
    list_filter = ("state", "type")
    list_select_related = ("subscription__destination",)
    search_fields = ("=subscription__subject",)
    show_full_result_count = False
    ordering = ("-id",)
    inlines = (AttemptInline,)
    actions = ("redeliver_selected",)
    actions_detail = ("redeliver",)
    fieldsets = (
        (None, {"fields": ("id", "type", "source", "subscription", "sequence", "time")}),
        ("Delivery", {"fields": ("state_shown", "tries", "silences", "next_attempt_at", "settled_at", "expires_at")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        rows: QuerySet[Event] = super().get_queryset(request)
        return rows.defer("body", *(f"subscription__{name}" for name in Subscription.SECRETS))

    @admin.display(description="Type", ordering="type")
    def short_type(self, event: Event) -> str:
        return event.type.removeprefix("orchestrator.job.")

    @admin.display(description="Job")
    def subject(self, event: Event) -> str:
        return event.subscription.subject

    @_label("State", {"pending": "info", "delivered": "success", "dead": "danger"}, ordering="state")
    def state_shown(self, event: Event) -> str:
        return event.state

    @_button("Redeliver", "It is sent again under the same id; one that waits for its next try is tried now.")
    def redeliver(self, request: HttpRequest, _form: BaseDialogForm, object_id: str) -> HttpResponse:
        self._redeliver(request, Event.objects.filter(pk=UUID(object_id)))
        return _back_to(self, object_id)

    @admin.action(description="Redeliver", permissions=["operate"])
    def redeliver_selected(self, request: HttpRequest, rows: QuerySet[Event]) -> None:
        self._redeliver(request, rows)

    @staticmethod
    def _redeliver(request: HttpRequest, rows: QuerySet[Event]) -> None:
        chosen: Iterable[tuple[UUID, UUID]] = rows.values_list("subscription__stream", "pk")
        count = sum(redelivery.redeliver(stream, event) for stream, event in chosen)
        messages.success(request, f"{count} {'event' if count == 1 else 'events'} will be sent again.")
