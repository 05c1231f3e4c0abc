"""The admin's pages of namespaces."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from orchestrator_site.base.access.models import Namespace
from orchestrator_site.base.admin_elements import moment
from orchestrator_site.base.read_only_admin import ListedLookups


@admin.register(Namespace)
class NamespaceAdmin(ListedLookups, ModelAdmin):  # type: ignore[misc]
    list_display = ("name", "created")
    ordering = ("name",)
    search_fields = ("name",)
    created = moment("created_at", "Created")
    fields = ("name",)

    def get_readonly_fields(self, request: HttpRequest, obj: Namespace | None = None) -> Any:  # noqa: ARG002
        """Return the name for one that exists: jobs, logs and metrics contain it."""
        return () if obj is None else ("name",)

    def has_delete_permission(self, *_: Any) -> bool:
        return False
