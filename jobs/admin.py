"""Jobs and nodes to look at. Nothing can be changed here, and no secret is shown.

Fields are listed one by one: a new one of a model is hidden until somebody decides otherwise.
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
    show_full_result_count = False  # counting all rows costs more the more there are
    search_fields = ("=id",)  # exactly, so that an index answers
    ordering = ("-uuid",)
    inlines = (InputInline, OutputInline)
    fieldsets = (
        (None, {"fields": ("id", "uuid", "status", "reason", "error", "exit_code", "doing", "node", "owner")}),
        ("What it is", {"fields": ("image", "cpu_millis", "memory_mib", "timeout_seconds", "meta", "workspace")}),
        ("How it runs", {"fields": ("pull_policy", "network", "claims", "refused_starts", "owner_deaths", "reserved")}),
        ("When", {"fields": ("created_at", "started_at", "finished_at", "exited_at", "outputs_cancelled_at", "completed_at")}),
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
        ("Has", {"fields": ("cpu_millis", "cpu_millis_total", "memory_mib")}),
        ("Reserved", {"fields": ("cpu_millis_reserved", "memory_mib_reserved")}),
        ("Starts that fail", {"fields": ("next_start_at", "start_refusal", "start_refused", "start_pause", "start_probe")}),
    )


@admin.register(Worker)
class WorkerAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("host", "pid", "node", "started_at")
    list_filter = ("node",)
    list_select_related = ("node",)
    ordering = ("-started_at",)
    fieldsets = ((None, {"fields": ("id", "node", "host", "pid", "counter", "started_at", "takes_downloads", "takes_uploads")}),)
