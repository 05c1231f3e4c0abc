"""The page of recent actions: what users of the admin did, and to what."""

from copy import copy
from typing import Any

from django.contrib import admin
from django.contrib.admin import AdminSite
from django.contrib.admin.models import LogEntry
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin

from orchestrator_site.base.admin_elements import link, moment
from orchestrator_site.base.large_lists import BoundedChangeList, LargeList


class _RecentActionsList(BoundedChangeList):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.opts = self.model_admin.opts
        self.title = "Recent actions"


@admin.register(LogEntry)
class RecentActionsAdmin(LargeList, ModelAdmin):  # type: ignore[misc]
    list_display = ("done", "user", "what", "kind", "target")
    list_display_links = None
    list_filter = ("user",)
    list_select_related = ("user", "content_type")
    ordering = ("-id",)  # by the primary key: there is no index of the times
    done = moment("action_time", "Time")

    def __init__(self, model: type[LogEntry], site: AdminSite) -> None:
        super().__init__(model, site)
        self.opts = copy(model._meta)  # with the name that the menu has: the model itself belongs to Django
        self.opts.verbose_name, self.opts.verbose_name_plural = "recent action", "recent actions"

    def get_changelist(self, _request: HttpRequest, **_options: Any) -> type[_RecentActionsList]:
        return _RecentActionsList

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
        return link(address, entry.object_repr)
