"""Read-only admin pages of jobs, nodes and workers, without secrets.

Fields are named one by one, so a new field of a model is hidden until it is added here.
"""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline

from jobs.models import Input, Job, Node, Output, Worker
from orchestrator_site.base.read_only_admin import ReadOnly


class _TransferInline(ReadOnly, TabularInline):  # type: ignore[misc]
    extra = 0
    hide_title = True
    ordering = ("position",)
    fields = ("name", "type", "path", "status", "bytes", "error")
    readonly_fields = fields
    hidden: tuple[str, ...] = ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer(*self.hidden)  # type: ignore[no-any-return]


class InputInline(_TransferInline):
    model = Input
    hidden = ("content", "url", "headers")


class OutputInline(_TransferInline):
    model = Output
    hidden = ("url", "headers")


@admin.register(Job)
class JobAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("id", "status", "reason", "image", "node", "created_at", "finished_at")
    list_filter = ("status", "reason", "node")
    list_select_related = ("node",)
    list_per_page = 50
    show_full_result_count = False  # counting all rows is slow in a large table
    search_fields = ("=id",)  # an exact match, which uses the index
    ordering = ("-uuid",)
    inlines = (InputInline, OutputInline)
    fieldsets = (
        (None, {"fields": ("id", "uuid", "status", "reason", "error", "exit_code", "doing", "node", "owner")}),
        ("Description", {"fields": ("image", "cpu_millis", "memory_mib", "timeout_seconds", "meta", "workspace")}),
        ("Execution", {"fields": ("pull_policy", "network", "claims", "refused_starts", "owner_deaths", "reserved")}),
        ("Times", {"fields": ("created_at", "started_at", "finished_at", "exited_at", "outputs_cancelled_at", "completed_at")}),
        ("Log", {"fields": ("wants_logs", "log_bytes", "log_full", "log_dropped")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        rows: QuerySet[Job] = super().get_queryset(request)
        return rows.defer("environment", "command", "log_tail_stdout", "log_tail_stderr")


@admin.register(Node)
class NodeAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = (
        "name",
        "seen_at",
        "next_start_at",
        "cpu_millis_reserved",
        "cpu_millis_total",
        "memory_mib_reserved",
        "memory_mib",
    )
    ordering = ("name",)
    fieldsets = (
        (None, {"fields": ("name", "engine_id", "network_name", "network_id", "seen_at", "warnings")}),
        ("Capacity", {"fields": ("cpu_millis", "cpu_millis_total", "memory_mib")}),
        ("Reserved", {"fields": ("cpu_millis_reserved", "memory_mib_reserved")}),
        ("Failed starts", {"fields": ("next_start_at", "start_refusal", "start_refused", "start_pause", "start_probe")}),
    )


@admin.register(Worker)
class WorkerAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("host", "pid", "node", "started_at")
    list_filter = ("node",)
    list_select_related = ("node",)
    ordering = ("-started_at",)
    fieldsets = ((None, {"fields": ("id", "node", "host", "pid", "counter", "started_at", "takes_downloads", "takes_uploads")}),)
