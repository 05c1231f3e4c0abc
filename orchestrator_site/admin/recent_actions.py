"""The page of recent actions: what users of the admin did, and to what."""

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin

from orchestrator_site.base.read_only_admin import ReadOnly


@admin.register(LogEntry)
class RecentActionsAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("action_time", "user", "what", "kind", "target")
    list_display_links = None
    list_filter = ("user",)
    list_select_related = ("user", "content_type")
    list_per_page = 50
    show_full_result_count = False
    ordering = ("-id",)  # by the primary key: there is no index of the times

    def has_view_permission(self, request: HttpRequest, obj: LogEntry | None = None) -> bool:
        return obj is None and bool(super().has_view_permission(request, obj))  # entries have no page of their own

    @admin.display(description="Action")
    def what(self, entry: LogEntry) -> str:
        if entry.is_addition():
            return "Added"
        if entry.is_deletion():
            return "Deleted"
        return entry.get_change_message() or "Changed"

    @admin.display(description="Kind")
    def kind(self, entry: LogEntry) -> str:
        return str(entry.content_type.name) if entry.content_type else ""

    @admin.display(description="Object")
    def target(self, entry: LogEntry) -> str | SafeString:
        address = None if entry.is_deletion() else entry.get_admin_url()
        if address is None:
            return entry.object_repr
        return format_html('<a class="text-primary-600 dark:text-primary-500" href="{}">{}</a>', address, entry.object_repr)
