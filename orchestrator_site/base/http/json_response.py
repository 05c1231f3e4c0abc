"""Answers in JSON."""

from collections.abc import Mapping

from django.http import JsonResponse


def json_response(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> JsonResponse:
    """Return an answer in UTF-8, without escapes."""
    return JsonResponse(body, status=status, headers=headers, json_dumps_params={"ensure_ascii": False})
