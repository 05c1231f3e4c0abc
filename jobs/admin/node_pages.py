"""The lists and pages of nodes and workers."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from unfold.admin import ModelAdmin
from unfold.forms import BaseDialogForm

from jobs import draining, node_conditions, node_room
from jobs.models import Node, Worker
from orchestrator_site.base import operator_log
from orchestrator_site.base.admin_elements import back_to, button, label, moment, named_field
from orchestrator_site.base.read_only_admin import ReadOnly


@admin.register(Node)
class NodeAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("name", "condition", "seen", "cpu", "memory")
    seen = moment("seen_at", "Last heartbeat")
    ordering = ("name",)
    actions_detail = ("drain", "undrain")
    fieldsets = (
        (None, {"fields": ("name", "kind", "condition", "seen", "cpu", "memory", "largest", "not_enforced")}),
        ("Engine", {"fields": ("engine_id", "network_name", "network_id")}),
        ("Failed starts", {"fields": ("start_refusal", "failures", "next_try", "start_pause", "start_probe")}),
    )
    next_try = moment("next_start_at", "Next try")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Node]:
        rows: QuerySet[Node] = super().get_queryset(request)
        return node_conditions.with_condition(rows)

    @label("State", node_conditions.COLORS)
    def condition(self, node: Any) -> str:
        return str(node.condition)

    @admin.display(description="Kind")
    def kind(self, node: Node) -> str:
        return "cluster: it places jobs itself, whatever they have reserved" if node.schedules else "container engine"

    @admin.display(description="CPU reserved")
    def cpu(self, node: Node) -> str:
        return node_conditions.cpu(node)

    @admin.display(description="Memory reserved")
    def memory(self, node: Node) -> str:
        return node_conditions.memory(node)

    @admin.display(description="Largest job")
    def largest(self, node: Node) -> str:
        room = node_room.largest(node)
        return f"{room.cpu_millis / 1000:g} cores and {room.memory_mib / 1024:.3g} GiB"

    @admin.display(description="Limits not enforced")
    def not_enforced(self, node: Node) -> str | None:
        return "; ".join(node.warnings) or None

    @admin.display(description="Images and jobs that failed last")
    def failures(self, node: Node) -> str | None:
        return "; ".join(f"{image} ({job})" for image, job in node.start_refused or ()) or None

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Return the buttons of a node's page: of the two that drain it and undo that, the one that changes something."""
        without = "drain" if Node.objects.filter(pk=object_id, drained=True).exists() else "undrain"
        return [action for action in super().get_actions_detail(request, object_id) if action.path != without]

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
    list_display = ("host", "pid", "node", "started")
    started = moment("started_at", "Started")
    list_filter = ("node",)
    list_select_related = ("node",)
    ordering = ("-started_at",)
    identity = named_field("id", "ID")
    fieldsets = (
        (None, {"fields": ("identity", "node", "host", "pid", "counter", "started", "takes_downloads", "takes_uploads")}),
    )
