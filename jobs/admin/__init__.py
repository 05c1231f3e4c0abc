"""Read-only admin pages of jobs, nodes and workers, without secrets.

Fields are named one by one, so a new field of a model is hidden until it is added here.
"""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import BaseDialogForm

from jobs import draining, node_conditions
from jobs.models import Input, Job, Node, Output, Worker
from orchestrator_site.base import operator_log
from orchestrator_site.base.admin_elements import back_to, button, label
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
        "condition",
        "seen_at",
        "next_start_at",
        "cpu_millis_reserved",
        "cpu_millis_total",
        "memory_mib_reserved",
        "memory_mib",
    )
    ordering = ("name",)
    show_full_result_count = False
    actions_detail = ("drain", "undrain")
    fieldsets = (
        (None, {"fields": ("name", "condition", "engine_id", "network_name", "network_id", "seen_at", "warnings")}),
        ("Capacity", {"fields": ("cpu_millis", "cpu_millis_total", "memory_mib")}),
        ("Reserved", {"fields": ("cpu_millis_reserved", "memory_mib_reserved")}),
        ("Failed starts", {"fields": ("next_start_at", "start_refusal", "start_refused", "start_pause", "start_probe")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Node]:
        rows: QuerySet[Node] = super().get_queryset(request)
        return node_conditions.with_condition(rows)

    @label("State", node_conditions.COLORS)
    def condition(self, node: Any) -> str:
        return str(node.condition)

    @button("Drain", "The node takes no new jobs until this is undone. Jobs that it has claimed go on.")
    def drain(self, request: HttpRequest, _form: BaseDialogForm, object_id: str) -> HttpResponse:
        return self._do(request, object_id, draining.drain, "Drained: it takes no new jobs")

    @button("Undo drain", "The node takes new jobs again.")
    def undrain(self, request: HttpRequest, _form: BaseDialogForm, object_id: str) -> HttpResponse:
        return self._do(request, object_id, draining.undrain, "Drain undone: it takes new jobs again")

    def _do(self, request: HttpRequest, object_id: str, act: Callable[[int], object], done: str) -> HttpResponse:
        node = get_object_or_404(Node, pk=object_id)
        operator_log.record(request, [node], done)
        act(node.pk)
        messages.success(request, f"{node}: {done}.")
        return back_to(self, node.pk)


@admin.register(Worker)
class WorkerAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("host", "pid", "node", "started_at")
    list_filter = ("node",)
    list_select_related = ("node",)
    ordering = ("-started_at",)
    fieldsets = ((None, {"fields": ("id", "node", "host", "pid", "counter", "started_at", "takes_downloads", "takes_uploads")}),)
