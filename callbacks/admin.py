"""Events and their attempts, to look at. Neither keys nor the secret parts of URLs are shown."""

from django.contrib import admin
from unfold.admin import ModelAdmin, TabularInline

from callbacks.models import Attempt, Event, Subscription
from orchestrator_site.egress import redact
from orchestrator_site.read_only import ReadOnly


class AttemptInline(ReadOnly, TabularInline):  # type: ignore[misc]
    model = Attempt
    hide_title = True
    fields = ("time", "status", "latency_ms", "error", "answer")


@admin.register(Subscription)
class SubscriptionAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("subject", "origin", "last_sequence", "next_attempt_at")
    search_fields = ("=subject",)
    show_full_result_count = False
    fields = (
        "stream",
        "subject",
        "destination",
        "signed",
        "types",
        "last_sequence",
        "bulk_refused",
        "next_attempt_at",
        "lease_until",
    )

    @admin.display(description="URL")
    def destination(self, subscription: Subscription) -> str:
        return redact(subscription.url)

    @admin.display(boolean=True)
    def signed(self, subscription: Subscription) -> bool:
        return subscription.key is not None


@admin.register(Event)
class EventAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("id", "type", "subscription", "sequence", "state", "tries", "next_attempt_at")
    list_filter = ("state", "type")
    list_select_related = ("subscription",)
    search_fields = ("=subscription__subject",)
    show_full_result_count = False
    inlines = (AttemptInline,)
    fields = (
        "id",
        "subscription",
        "sequence",
        "type",
        "source",
        "time",
        "state",
        "tries",
        "silences",
        "next_attempt_at",
        "settled_at",
        "expires_at",
    )
