"""Lists of large tables in the admin: a page costs the same, however many rows there are.

Django counts all rows that match, for the number of pages, and sorts by any column.
"""

from typing import Any, Final

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property
from unfold.views import ChangeList

from orchestrator_site.base.read_only_admin import ReadOnly

MAX_LISTED: Final = 10_000
MAX_CHOSEN: Final = 1_000


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """A paginator that counts, and so shows, at most `MAX_LISTED` rows."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows[:MAX_LISTED].count())  # in their order, so that they are read by the same index as a page


class BoundedChangeList(ChangeList):  # type: ignore[misc]
    """A list in the order of its page: sorted by any other column, a page would read all rows that match."""

    result_list: Any
    limit = MAX_LISTED
    note = ""  # shown above the list

    def get_ordering(self, _request: HttpRequest, _queryset: QuerySet[Any]) -> list[Any]:
        ordering: list[Any] = self._get_deterministic_ordering(list(self.model_admin.ordering))
        return ordering

    def among_newest(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Return those of the rows that are among the newest `limit` of the table, for filters without an index, and say so."""
        newest = self.model._default_manager.order_by("-pk").values_list("pk", flat=True)
        beyond = newest[self.limit : self.limit + 1].first()
        if beyond is None:
            return rows
        self.note = f"Only the newest {self.limit:,} were looked at: there may be more that match."
        return rows.filter(pk__gt=beyond)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        # Django reads a list of one page without a limit. PostgreSQL would then expect as many rows as its statistics say, and
        # might read the whole table.
        self.result_list = self.result_list[: self.result_count]
        if not (self.has_active_filters or self.query):
            self.full_result_count = self.result_count  # else the page offers to show all rows, although it does

    @property
    def is_cut(self) -> bool:
        """Whether there may be rows that no page shows."""
        return bool(self.result_count >= MAX_LISTED)


class LargeList(ReadOnly):
    """A page of the admin whose list is of a large table. Its `ordering`, filters and search need an index each."""

    paginator = BoundedPaginator
    show_full_result_count = False
    sortable_by: tuple[str, ...] = ()
    list_per_page = 50
    list_before_template = "orchestrator_site/list_limit.html"

    def get_changelist(self, _request: HttpRequest, **_options: Any) -> type[BoundedChangeList]:
        return BoundedChangeList

    def chosen(self, request: HttpRequest, rows: QuerySet[Any]) -> list[Any]:
        """Return the rows that an action is for. If these are too many, or were all deleted meanwhile, say so and return none.

        An action may be for all rows that match, however many these are.
        """
        found = list(rows[: MAX_CHOSEN + 1])
        if not found:
            messages.warning(request, "Nothing was done: what was chosen does not exist any more.")
        if len(found) <= MAX_CHOSEN:
            return found
        messages.error(request, f"Nothing was done: choose at most {MAX_CHOSEN:,} at a time.")
        return []
