"""The lists and pages of subscriptions and events, with the attempts to deliver each event."""

from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import BaseDialogForm

from callbacks.admin import links
from callbacks.admin.explanation import Explanation, explain_event, first_pending
from callbacks.models import Attempt, Event, Subscription
from callbacks.operators import redelivery
from orchestrator_site.base import operator_log
from orchestrator_site.base.admin_elements import (
    back_to,
    button,
    label,
    link,
    moment,
    named_field,
    once,
    relative_time,
    report_redelivery,
    yes_or_no,
)
from orchestrator_site.base.db.encryption import if_readable
from orchestrator_site.base.egress.http_client import redact
from orchestrator_site.base.large_lists import BoundedChangeList, LargeList
from orchestrator_site.base.read_only_admin import ReadOnly


@admin.register(Subscription)
class SubscriptionAdmin(LargeList, ModelAdmin):  # type: ignore[misc]
    list_display = ("job", "destination", "events", "due", "waits")
    list_select_related = ("destination",)
    search_fields = ("subject__exact",)
    search_help_text = "The ID of a job"
    ordering = ("-id",)
    events = named_field("last_sequence", "Events")
    due = moment("next_attempt_at", "Next attempt")
    waits = moment("waiting_since", "Waits for its destination since")
    actions_detail = ("redeliver_dead",)
    fieldsets = (
        (None, {"fields": ("job_shown", "url_shown", "signed", "types_shown", "destination_shown")}),
        ("Delivery", {"fields": ("events_shown", "undelivered", "log_refused", "due", "waits", "leased")}),
    )
    leased = moment("lease_until", "Delivery in progress, dead after")
    job = named_field("subject", "Job")

    def get_fieldsets(self, request: HttpRequest, subscription: Subscription | None = None) -> Any:
        return links.without_events(request, super().get_fieldsets(request, subscription), "events_shown", "undelivered")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Subscription]:
        rows: QuerySet[Subscription] = super().get_queryset(request)
        return rows.defer(*Subscription.SECRETS).annotate(shown_url=if_readable("url"), is_signed=Q(key__isnull=False))

    @admin.display(description="Job")
    def job_shown(self, subscription: Subscription) -> SafeString:
        return links.to_job(subscription)

    @admin.display(description="Destination")
    def destination_shown(self, subscription: Subscription) -> SafeString:
        return links.to_destination(links.destination_of(subscription))

    @admin.display(description="Events")
    def events_shown(self, subscription: Subscription) -> SafeString:
        """Link to the list of its events."""
        address = f"{reverse('admin:callbacks_event_changelist')}?{urlencode({'q': subscription.subject})}"
        return link(address, str(subscription.last_sequence))

    @admin.display(description="Not delivered")
    def undelivered(self, subscription: Subscription) -> SafeString | None:
        """Link to the first pending and the first dead event, whose pages say why."""
        events = once(subscription, _first_undelivered)
        found = [(links.to_event(event, f"{event} ({event.state})"),) for event in events]
        return format_html_join(", ", "{}", found) if found else None

    @admin.display(description="Event types")
    def types_shown(self, subscription: Subscription) -> str:
        return ", ".join(subscription.types) or "all"

    @admin.display(description="Last log event refused")
    def log_refused(self, subscription: Subscription) -> str:
        return yes_or_no(subscription.bulk_refused)

    @admin.display(description="URL")
    def url_shown(self, subscription: Any) -> str:
        return redact(subscription.shown_url)

    @admin.display
    def signed(self, subscription: Any) -> str:
        return yes_or_no(subscription.is_signed)

    @button("Redeliver dead events", "Sends all dead events of this job again, in order and with the same ids.")
    def redeliver_dead(self, request: HttpRequest, _form: BaseDialogForm, object_id: str) -> HttpResponse:
        subscription = get_object_or_404(
            Subscription.objects.only("stream", "subject", "destination__origin").select_related("destination"), pk=object_id
        )
        operator_log.record(request, [subscription], "Redelivers its dead events")
        report_redelivery(request, redelivery.redeliver_dead(subscription.stream), "the job has no dead events")
        return back_to(self, object_id)


class AttemptInline(ReadOnly, TabularInline):  # type: ignore[misc]
    model = Attempt
    extra = 0
    hide_title = True
    fields = ("began", "status", "latency", "error", "answer")
    readonly_fields = ("began", "latency")

    @admin.display(description="Time (UTC)")
    def began(self, attempt: Attempt) -> str:
        return format_html('<span class="whitespace-nowrap">{}</span>', f"{attempt.time:%Y-%m-%d %H:%M:%S}")

    @admin.display(description="Latency")  # without the unit: on narrow screens the words of a label begin with capitals
    def latency(self, attempt: Attempt) -> str:
        return f"{attempt.latency_ms:,} ms"


class EventChangeList(BoundedChangeList):
    """The list of events, in the order of an index: of the dead ones the last, of the undelivered ones the oldest come first.

    Delivered ones have no index of their own, so they are looked for among the newest events.
    """

    _ORDERS: ClassVar[dict[str, list[str]]] = {
        Event.State.DEAD: ["-settled_at"],
        Event.State.PENDING: ["expires_at"],
    }

    def get_ordering(self, _request: HttpRequest, _queryset: QuerySet[Event]) -> list[str]:
        return self._ORDERS.get(self._state(), ["-pk"])

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Event]:
        rows: QuerySet[Event] = super().get_queryset(request, exclude_parameters)
        if self.query and (state := self._state()):
            rows, _ = self.model_admin.get_search_results(request, self.root_queryset, self.query)
            # With `=` PostgreSQL might look through all dead events, if its statistics say that there are few.
            return rows.filter(state__gte=state, state__lte=state).order_by("-pk")
        if self.query or not self.get_filters_params() or self._state() in self._ORDERS:
            return rows
        return self.among_newest(rows)

    def _state(self) -> str:
        """Return the state that is listed, if it is a single one."""
        values = self.filter_params.get("state__exact", [])
        return values[0] if len(values) == 1 else ""


@admin.register(Event)
class EventAdmin(LargeList, ModelAdmin):  # type: ignore[misc]
    list_display = ("short_type", "job", "sequence", "state_shown", "destination", "tries", "created", "due")
    list_filter = ("state",)
    search_fields = ("subscription__subject__exact",)
    search_help_text = "The ID of a job or of an event"
    ordering = ("-id",)
    created = moment("created_at", "Created")
    due = moment("next_attempt_at", "Next attempt")
    settled = moment("settled_at", "Delivered or dead since")
    inlines = (AttemptInline,)
    actions = ("redeliver_selected",)
    actions_detail = ("redeliver",)
    fieldsets = (
        (None, {"fields": ("state_shown", "why", "what_to_do", "job")}),
        (
            "Delivery",
            {
                "fields": (
                    "waits_for",
                    "destination_shown",
                    "subscription",
                    "tries",
                    "unanswered",
                    "due",
                    "settled",
                    "expires",
                )
            },
        ),
        ("Event", {"fields": ("identity", "type", "source", "sequence", "time")}),
    )
    identity = named_field("id", "ID")
    unanswered = named_field("silences", "Unanswered attempts in a row")

    def get_changelist(self, _request: HttpRequest, **_options: Any) -> type[EventChangeList]:
        return EventChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        rows: QuerySet[Event] = super().get_queryset(request)
        rows = rows.select_related("subscription__destination")
        return rows.defer("body", *(f"subscription__{name}" for name in Subscription.SECRETS))

    def get_search_results(self, _request: HttpRequest, queryset: QuerySet[Event], search: str) -> tuple[QuerySet[Event], bool]:
        if not search:
            return queryset, False
        if (identity := _uuid(search)) and Event.objects.filter(pk=identity).exists():
            return queryset.filter(pk=identity), False
        streams = list(Subscription.objects.filter(subject=search).values_list("pk", flat=True))
        return queryset.filter(subscription__in=streams), False

    @admin.display(description="Type")
    def short_type(self, event: Event) -> str:
        return event.type.removeprefix("orchestrator.job.")

    @admin.display(description="Job")
    def job(self, event: Event) -> SafeString:
        return links.to_job(event.subscription)

    @admin.display(description="What happened")
    def why(self, event: Event) -> str:
        return once(event, _explain).sentence

    @admin.display(description="What to do")
    def what_to_do(self, event: Event) -> str | None:
        return once(event, _explain).advice or None

    @admin.display(description="Is dead if still pending")
    def expires(self, event: Event) -> str | None:
        return relative_time(event.expires_at, timezone.now()) if event.state == Event.State.PENDING else None

    @admin.display(description="Destination")
    def destination(self, event: Event) -> str:
        return event.subscription.destination.origin

    @admin.display(description="Destination")
    def destination_shown(self, event: Event) -> SafeString:
        return links.to_destination(links.destination_of(event.subscription))

    @admin.display(description="Waits for")
    def waits_for(self, event: Event) -> str | SafeString | None:
        """Say what a pending event waits for: the events of a job are sent in order."""
        if event.state != Event.State.PENDING:
            return None
        first = once(event, first_pending)
        if first is not None and first != event:
            return links.to_event(first, f"{first}, which is sent before it")
        if event.subscription.waiting_since is not None:
            return "its destination"
        return "its next attempt" if event.next_attempt_at else "its turn"

    @label("State", {"pending": "info", "delivered": "success", "dead": "danger"})
    def state_shown(self, event: Event) -> str:
        return event.state

    @button("Redeliver", "Sends the event again with the same id. A pending event is tried now.")
    def redeliver(self, request: HttpRequest, _form: BaseDialogForm, object_id: str) -> HttpResponse:
        events = list(self.get_queryset(request).filter(pk=UUID(object_id)))
        if not events:
            raise Http404
        self._redeliver(request, events)
        return back_to(self, object_id)

    @admin.action(description="Redeliver", permissions=["operate"])
    def redeliver_selected(self, request: HttpRequest, rows: QuerySet[Event]) -> None:
        if events := self.chosen(request, rows):
            self._redeliver(request, events)

    @staticmethod
    def _redeliver(request: HttpRequest, events: list[Event]) -> None:
        operator_log.record(request, events, "Redelivered")
        count = sum(redelivery.redeliver(event.subscription.stream, event.pk) for event in events)
        report_redelivery(request, count, "what was chosen was deleted meanwhile")


def _explain(event: Event) -> Explanation:
    return explain_event(event, links.destination_of(event.subscription))


def _first_undelivered(subscription: Subscription) -> list[Event]:
    """Return the first pending and the first dead event."""
    events = subscription.events.order_by("sequence").only("type", "sequence", "state")
    first = [events.filter(state=state).first() for state in (Event.State.PENDING, Event.State.DEAD)]
    return [event for event in first if event is not None]


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text.strip())
    except ValueError:
        return None
