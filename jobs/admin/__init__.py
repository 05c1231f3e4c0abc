"""Read-only admin pages of jobs, nodes and workers, without secrets.

Fields are named one by one, so a new field of a model is hidden until it is added here.
"""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from unfold.admin import ModelAdmin
from unfold.forms import BaseDialogForm

from jobs import draining, node_conditions
from jobs.admin.job_page import JobPage
from jobs.models import Job, Node, Worker
from orchestrator_site.base import operator_log
from orchestrator_site.base.admin_elements import back_to, button, label
from orchestrator_site.base.read_only_admin import ReadOnly


@admin.register(Job)
class JobAdmin(ReadOnly, JobPage):
    list_display = ("id", "status", "reason", "image", "node", "created_at", "finished_at")
    list_filter = ("status", "reason", "node")
    list_select_related = ("node",)
    list_per_page = 50
    show_full_result_count = False  # counting all rows is slow in a large table
    search_fields = ("=id",)  # an exact match, which uses the index
    ordering = ("-uuid",)


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
