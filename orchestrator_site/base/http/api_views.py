"""What every view under `/v1` has in common: a key is asked for, errors are JSON, parameters are known."""

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from django.http import Http404, HttpRequest, JsonResponse
from rest_framework.request import Request
from rest_framework.views import APIView

from orchestrator_site.base.http.api_errors import InvalidRequest
from orchestrator_site.base.http.api_keys import require_key
from orchestrator_site.base.http.json_body import member

_WHOLE = re.compile(r"\d{1,18}", re.ASCII)
_SECONDS = re.compile(r"\d{1,4}(\.\d{1,3})?", re.ASCII)
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_MAX_PARAMETERS = 100
PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 1000


class ApiView(APIView):
    """Answers in JSON whatever `Accept` says; a view that offers more looks at the header itself."""

    http_method_names = ["get", "head", "post", "delete"]
    needs_key = True

    def initial(self, request: Request, *_args: Any, **_kwargs: Any) -> None:
        """Runs before the method's handler, and before the body is read."""
        if self.needs_key:
            require_key(request._request)


class UnknownView(ApiView):
    """Whatever nothing else under `/v1` answers."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        raise Http404


def json_response(body: object, *, status: int = 200, headers: dict[str, str] | None = None) -> JsonResponse:
    """UTF-8, not escaped."""
    return JsonResponse(body, safe=False, status=status, headers=headers, json_dumps_params={"ensure_ascii": False})


def rfc3339(moment: datetime) -> str:
    """UTC with milliseconds: `2026-01-31T12:00:00.123Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Parameters:
    """A request's query parameters. One that is unknown, repeated, unreadable or out of range is 400 naming it."""

    def __init__(self, request: HttpRequest, known: Collection[str] = (), *, prefix: str | None = None) -> None:
        """`prefix`: parameters whose names begin so are known too, whatever follows."""
        self._values: dict[str, str] = {}
        pairs = [pair for pair in request.META.get("QUERY_STRING", "").split("&") if pair]
        if len(pairs) > _MAX_PARAMETERS:
            raise InvalidRequest(f"at most {_MAX_PARAMETERS} query parameters are read")
        for pair in pairs:
            raw_name, _, raw_value = pair.partition("=")
            name = _decode(raw_name)
            if name is None:
                raise InvalidRequest("a query parameter's name cannot be read", field=member("", raw_name))
            if name not in known and not (prefix and name.startswith(prefix)):
                raise InvalidRequest("this query parameter is unknown", field=member("", name))
            if name in self._values:
                raise InvalidRequest("this query parameter is given twice", field=member("", name))
            value = _decode(raw_value)
            if value is None:
                raise InvalidRequest("this query parameter is not valid UTF-8 or holds a NUL", field=member("", name))
            self._values[name] = value

    def text(self, name: str) -> str | None:
        return self._values.get(name)

    def prefixed(self, prefix: str) -> dict[str, str]:
        """Those whose names begin so, without the prefix."""
        return {name.removeprefix(prefix): value for name, value in self._values.items() if name.startswith(prefix)}

    def integer(self, name: str, low: int, high: int) -> int | None:
        raw = self._values.get(name)
        if raw is not None and not (_WHOLE.fullmatch(raw) and low <= int(raw) <= high):
            raise InvalidRequest(f"write a whole number from {low} to {high}", field=name)
        return None if raw is None else int(raw)

    def page_limit(self) -> int:
        """How many items a page may have: `limit`."""
        return self.integer("limit", 1, PAGE_MAX) or PAGE_DEFAULT

    def seconds(self, name: str, high: int) -> float:
        """0 where it is not given."""
        raw = self._values.get(name, "0")
        if not _SECONDS.fullmatch(raw) or float(raw) > high:
            raise InvalidRequest(f"write seconds from 0 to {high}", field=name)
        return float(raw)

    def choice(self, name: str, choices: Collection[str]) -> str | None:
        raw = self._values.get(name)
        if raw is not None and raw not in choices:
            raise InvalidRequest(f"write one of {', '.join(choices)}", field=name)
        return raw

    def moment(self, name: str) -> datetime | None:
        """An aware time, from RFC 3339 with an offset."""
        raw = self._values.get(name)
        if raw is None:
            return None
        try:
            if not _RFC_3339.fullmatch(raw):
                raise ValueError(raw)
            return datetime.fromisoformat(raw.upper())
        except ValueError as error:
            sentence = "write an RFC 3339 time with its offset, like 2026-01-31T12:00:00Z (a plus sign is written %2B)"
            raise InvalidRequest(sentence, field=name) from error


def _decode(raw: str) -> str | None:
    """None where it is not UTF-8 or holds a NUL, which PostgreSQL refuses."""
    try:
        text = unquote_to_bytes(raw.replace("+", " ").encode("latin-1")).decode()  # Latin-1: PEP 3333
    except UnicodeError:
        return None
    return None if "\0" in text else text
