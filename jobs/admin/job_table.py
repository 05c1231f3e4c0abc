"""The list of jobs in the admin: its columns, filters and search, which read indexes as the API does."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import QuerySet
from django.http import HttpRequest

from jobs.api.job_list import newest_matching
from jobs.models import Job
from jobs.states import Reason, State
from orchestrator_site.base.access import scopes
from orchestrator_site.base.admin_elements import label, moment
from orchestrator_site.base.db.column_statistics import in_index_order
from orchestrator_site.base.large_lists import BoundedChangeList, LargeList
from orchestrator_site.base.memberships.restriction import namespace_of_request

_MATCHES: Final = 1_000  # listed, of several filters

STATUS_COLORS: Final = {
    "accepted": "warning",
    "running": "info",
    "completed": "success",
    "failed": "danger",
    "cancelled": "default",
}


class JobChangeList(BoundedChangeList):
    """The list with one filter is read from its index. With several, the newest jobs that match are found first."""

    is_of_namespace = False  # and has no other filter

    def get_results(self, request: HttpRequest) -> None:
        if not self.is_of_namespace:
            super().get_results(request)
            return
        with in_index_order():
            super().get_results(request)
            len(self.result_list)  # reads it

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Job]:
        matching: QuerySet[Job] = super().get_queryset(request, exclude_parameters)
        rows: QuerySet[Job] = self.apply_select_related(self.root_queryset)  # unfiltered: found by their primary keys
        wanted, meta = self._wanted(namespace_of_request(request)), _meta_in(self.query)
        if self.query and not meta:
            return rows.filter(uuid__in=_with_id(self.query, wanted))
        if "reason" in wanted:
            wanted.setdefault("status", State.CANCELLED if wanted["reason"] == Reason.CANCELLED else State.FAILED)
        elif not (wanted or meta):
            return matching
        elif len(wanted) == 1 and not meta:
            self.is_of_namespace = "namespace" in wanted
            return _in_order_of_index(rows, *wanted.popitem())
        uuids, may_have_more = newest_matching(_MATCHES, wanted, meta)
        if may_have_more:
            self.note = "Only some of the newest jobs were looked at: there may be more that match."
        return rows.filter(uuid__in=uuids).order_by("-uuid")

    def _wanted(self, namespace: str | None) -> dict[str, Any]:
        """Return the values of the filters in use, by column. Raise an error for what no link leads to and no index is for."""
        wanted: dict[str, Any] = {} if namespace is None else {"namespace": namespace}
        for parameter, values in self.get_filters_params().items():
            match parameter, values:
                case "node__id__exact", [node]:
                    wanted["node_id"] = int(node)
                case "node__isnull", ["True"]:
                    wanted["node_id"] = None
                case "namespace", [value]:
                    wanted.setdefault("namespace", value)
                case "status__exact" | "reason__exact", [value]:
                    wanted[parameter.removesuffix("__exact")] = value
                case _:
                    raise IncorrectLookupParameters(f"{parameter} has no such filter")
        return wanted


def _with_id(job_id: str, wanted: Mapping[str, Any]) -> list[UUID]:
    """Return the primary keys of the jobs with this id, one in a namespace, that have the wanted values.

    They are not in the query: PostgreSQL might look for one of them first, if its statistics say that few jobs have it.
    """
    with_id = Job.objects.filter(namespace__in=scopes.names(), id=job_id)  # the index begins with the namespace
    found = with_id.values_list("uuid", *wanted)
    return [uuid for uuid, *values in found if values == [*wanted.values()]]


def _in_order_of_index(rows: QuerySet[Job], column: str, value: Any) -> QuerySet[Job]:
    """Return the jobs with a value, the newest first, in the order of the index of its column.

    PostgreSQL ignores a column that has one value (`=`) in the order. If its statistics say that most jobs have it, it may then
    look for them among all jobs, by their primary key.
    """
    conditions = {"isnull": True} if value is None else {"gte": value, "lte": value}
    return rows.filter(**{f"{column}__{name}": limit for name, limit in conditions.items()}).order_by(column, "-uuid")


def _meta_in(search: str) -> dict[str, str]:
    """Return the member of `meta` that a search is for, written as key=value. An id has no equals sign."""
    key, sign, value = search.partition("=")
    return {key.strip(): value.strip()} if sign else {}


class NamespaceFilter(admin.SimpleListFilter):
    """Only the jobs of a namespace. Django's own filter would read the whole table to find all of them."""

    title = "namespace"
    parameter_name = "namespace"

    def lookups(self, request: HttpRequest, _page: Any) -> list[tuple[str, str]]:
        """Return the choices; none, and the filter is not shown, if there is only one."""
        names = scopes.names() if namespace_of_request(request) is None else []
        return [(name, name) for name in names] if len(names) > 1 else []

    def queryset(self, _request: HttpRequest, queryset: QuerySet[Job]) -> QuerySet[Job]:
        name = self.value()
        return queryset if name is None else queryset.filter(namespace=name)


class JobTable(LargeList):
    """What the admin's page of jobs lists. `Job` has an index for each filter and for the id, newest first."""

    list_display = ("id", "namespace", "status_shown", "reason_shown", "image", "node", "created", "finished")
    list_filter = (NamespaceFilter, "status", "reason", "node")
    list_select_related = ("node",)
    search_fields = ("id__exact",)  # there is a search; see `JobChangeList`
    search_help_text = "An ID, or a member of meta: key=value"
    ordering = ("-uuid",)
    created = moment("created_at", "Created")
    finished = moment("finished_at", "Finished")

    def get_changelist(self, _request: HttpRequest, **_options: Any) -> type[JobChangeList]:
        return JobChangeList

    def get_search_results(self, _request: HttpRequest, queryset: QuerySet[Job], _search: str) -> tuple[QuerySet[Job], bool]:
        return queryset, False  # `JobChangeList` searches

    @label("Status", STATUS_COLORS)
    def status_shown(self, job: Job) -> str:
        return job.status

    @admin.display(description="Reason")
    def reason_shown(self, job: Job) -> str | None:
        return job.get_reason_display() or None
