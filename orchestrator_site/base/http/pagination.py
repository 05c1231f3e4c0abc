"""Pages of lists: `limit` items that follow `cursor`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from rest_framework.pagination import BasePagination
from rest_framework.request import Request

from orchestrator_site.base.http.fields import Integer, Text
from orchestrator_site.base.http.json_response import json_response
from orchestrator_site.base.http.serializers import QuerySerializer

T = TypeVar("T")
MAX_NUMBER: Final = 2**53  # JSON readers lose digits of larger integers
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items, and the cursor of the page that follows; None on the last page."""

    items: Sequence[T]
    next_cursor: object | None


class Cursor(Text):
    """The position in a list after which a page begins, opaque to clients; in most lists a number."""

    default_error_messages = {"cursor": "invalid cursor"}

    def __init__(self) -> None:
        super().__init__(required=False, help_text="`nextCursor` of the previous page.")

    def to_internal_value(self, data: Any) -> Any:
        if not _NUMBER.fullmatch(data) or int(data) > MAX_NUMBER:
            self.fail("cursor")
        return int(data)


class PageQuery(QuerySerializer):
    """The query parameters of a list."""

    limit = Integer(1, 1000, default=100, help_text="The maximum number of items on the page.")
    cursor = Cursor()


class CursorPagination(BasePagination):
    """Pages that cost the same wherever they are: each is what one bounded scan from the cursor finds.

    So a page may be short, even empty, and still have a `nextCursor`. `items` is the member of the answer that holds the items.
    """

    items: str

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:  # noqa: ARG002
        """Return the items that `queryset`, the function of a scan, finds for a cursor (None: the first page) and a limit."""
        page: Page[Any] = queryset(view.query.pop("cursor", None), view.query.pop("limit"))
        self._next = {} if page.next_cursor is None else {"nextCursor": str(page.next_cursor)}
        return list(page.items)

    def get_paginated_response(self, data: Any) -> Any:
        return json_response({self.items: data, **self._next})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        properties = {self.items: schema, "nextCursor": {"type": "string"}}
        return {"type": "object", "properties": properties, "required": [self.items], "additionalProperties": False}
