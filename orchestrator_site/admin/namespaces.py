"""The admin's pages of namespaces."""

from typing import Any, Final

from django.contrib import admin, messages
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from unfold.admin import ModelAdmin

from jobs import namespace_use
from orchestrator_site.base import operator_log
from orchestrator_site.base.access import limits
from orchestrator_site.base.access.models import Namespace
from orchestrator_site.base.admin_elements import moment, once
from orchestrator_site.base.read_only_admin import ListedLookups

_COUNTED: Final = 10_000  # jobs at most


@admin.register(Namespace)
class NamespaceAdmin(ListedLookups, ModelAdmin):  # type: ignore[misc]
    list_display = ("name", "jobs", "cpu", "memory", "not_decided")
    ordering = ("name",)
    search_fields = ("name",)
    created = moment("created_at", "Created")
    fieldsets = (
        (None, {"fields": ("name",)}),
        ("Limits", {"fields": ("max_running", "max_cpu_millis", "max_memory_mib", "max_undecided")}),
        ("In use", {"fields": ("jobs", "cpu", "memory", "not_decided", "created")}),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Namespace | None = None) -> Any:  # noqa: ARG002
        """Return the name for one that exists: jobs, logs and metrics contain it."""
        in_use = ("jobs", "cpu", "memory", "not_decided", "created")
        return in_use if obj is None else ("name", *in_use)

    def get_fieldsets(self, request: HttpRequest, obj: Namespace | None = None) -> Any:
        return super().get_fieldsets(request, obj)[: None if obj else 2]

    def changeform_view(self, request: HttpRequest, *args: Any, **options: Any) -> HttpResponse:
        try:
            response: HttpResponse = super().changeform_view(request, *args, **options)
        except IntegrityError:
            messages.error(request, "Another user has just added a namespace with this name.")
            return HttpResponseRedirect(request.path)
        return response

    def save_model(self, request: HttpRequest, obj: Namespace, form: Any, change: bool) -> None:
        operator_log.record(request, [obj], f"Changed {', '.join(form.changed_data)}" if change else "Added")
        obj.save(force_insert=not change)  # else one that was added at the same moment would be changed
        limits.kept.forget()

    def log_addition(self, *_: Any) -> None:
        """Do nothing: `save_model` has recorded it, also in the service's log."""

    def log_change(self, *_: Any) -> None:
        """Do nothing, for the same reason."""

    # -- what it uses -------------------------------------------------------------------------------------

    @admin.display(description="Jobs at once")
    def jobs(self, row: Namespace) -> str:
        return _of(once(row, _use).jobs, row.max_running)

    @admin.display(description="CPU reserved")
    def cpu(self, row: Namespace) -> str:
        limit = None if row.max_cpu_millis is None else row.max_cpu_millis / 1000
        return _of(once(row, _use).cpu_millis / 1000, limit)

    @admin.display(description="Memory reserved (MiB)")
    def memory(self, row: Namespace) -> str:
        return _of(once(row, _use).memory_mib, row.max_memory_mib)

    @admin.display(description="Undecided jobs")
    def not_decided(self, row: Namespace) -> str:
        found = namespace_use.undecided(row.name, _COUNTED)
        return _of(found, row.max_undecided) if found < _COUNTED else f"{_COUNTED:,} or more"

    def has_delete_permission(self, *_: Any) -> bool:
        return False


def _use(row: Namespace) -> namespace_use.Use:
    return namespace_use.use_of(row.name)


def _of(used: float, limit: float | None) -> str:
    return f"{used:g}" if limit is None else f"{used:g} of {limit:g}"
