"""Pages of lists: `limit` items that follow `cursor`."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.serializers import ValidationError

from orchestrator_site.base.http.api_errors import json_response
from orchestrator_site.base.http.fields import Integer, Text
from orchestrator_site.base.http.serializers import QuerySerializer

T = TypeVar("T")
MAX_NUMBER: Final = 2**53  # JSON readers lose digits of larger integers
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items, and the cursor of the page that follows; None on the last page."""

    items: Sequence[T]
    next_cursor: object | None


def cursor(decode: Callable[[str], Any]) -> Text:
    """Return the field of a cursor, which is opaque to clients; `decode` raises `ValueError` if it is invalid."""

    def parse(text: str) -> Any:
        try:
            return decode(text)
        except ValueError as error:
            raise ValidationError("invalid cursor") from error

    return Text(parse=parse, required=False, help_text="`nextCursor` of the previous page.")


def _decode_number(text: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > MAX_NUMBER:
        raise ValueError("not a cursor")
    return int(text)


class PageQuery(QuerySerializer):
    """The query parameters of a list, in which most cursors are numbers."""

    limit = Integer(1, 1000, default=100, help_text="The maximum number of items on the page.")
    cursor = cursor(_decode_number)


class CursorPagination(BasePagination):
    """Pages that are what one bounded scan finds: one may be short, even empty, and still have a `nextCursor`."""

    items: str

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:  # noqa: ARG002
        """Return the items that `queryset`, the function of a scan, finds for the query parameters."""
        page: Page[Any] = queryset(**view.query)
        self._next = {} if page.next_cursor is None else {"nextCursor": str(page.next_cursor)}
        return list(page.items)

    def get_paginated_response(self, data: Any) -> Any:
        return json_response({self.items: data, **self._next})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        properties = {self.items: schema, "nextCursor": {"type": "string"}}
        return {"type": "object", "properties": properties, "required": [self.items], "additionalProperties": False}


def pages_of(items: str) -> type[CursorPagination]:
    """Return the pagination of a list whose answers hold the items in the member `items`."""
    return type("Pagination", (CursorPagination,), {"items": items})
