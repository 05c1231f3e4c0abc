"""`/livez` and `/readyz`, for whatever watches over this process. They need no key and take any host name.

What goes wrong is told in words of our own: a driver's message may hold addresses and user names, and anybody
may ask.
"""

import logging
from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus
from typing import Final

from django.db import DatabaseError, InterfaceError, connection
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse, JsonResponse
from redis import RedisError

from jobs.models import Node
from orchestrator_site.base import broker
from orchestrator_site.base.db.postgresql import answers_within, lends_within
from orchestrator_site.base.http.api_errors import error_response

logger = logging.getLogger(__name__)

FRESH: Final = timedelta(seconds=30)
_SHOWN_NODES = 20
_ANSWER_SECONDS: Final = 3.0  # for each question to the database: who watches over us waits no longer than it must


class ProbeMiddleware:
    """Answers the probes before a middleware looks at the host name, a session or anything else."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._probes = {"/livez": livez, "/readyz": readyz}

    def __call__(self, request: HttpRequest) -> HttpResponse:
        probe = self._probes.get(request.path_info)
        if probe is None:
            return self._get_response(request)
        if request.method not in ("GET", "HEAD"):
            return error_response(
                HTTPStatus.METHOD_NOT_ALLOWED, "this method is not allowed for this address", headers={"Allow": "GET, HEAD"}
            )
        response = probe()
        response["Cache-Control"] = "no-store"
        return response


def livez() -> HttpResponse:
    """200 while the process serves."""
    return JsonResponse({"status": "healthy"})


def readyz() -> HttpResponse:
    """Whether a job that is posted now would be stored and run."""
    with answers_within(_ANSWER_SECONDS):
        database = _check_database()
        engine = _check_engine() if _is_healthy(database) else _unhealthy("unknown while the database does not answer")
    checks = {"database": database, "broker": _check_broker(), "engine": engine}
    healthy = all(_is_healthy(check) for check in checks.values())
    return JsonResponse(
        {"status": "healthy" if healthy else "unhealthy", "checks": checks},
        status=HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE,
        json_dumps_params={"ensure_ascii": False},
    )


def _check_database() -> dict[str, str]:
    try:
        lends_within(connection, _ANSWER_SECONDS)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (DatabaseError, InterfaceError):
        logger.exception("the database does not answer")
        return _unhealthy("the database does not answer")
    return _healthy()


def _check_broker() -> dict[str, str]:
    try:
        broker.ping()
    except (RedisError, OSError):
        logger.exception("the broker does not answer")
        return _unhealthy("the broker does not answer; jobs go on, up to a second later, and events wait for it")
    return _healthy()


def _check_engine() -> dict[str, str]:
    """Healthy while some node's heartbeat is fresh by the database's clock, and containers start there.

    Says which do not, and what limits are not enforced.
    """
    try:
        fresh = list(Node.objects.filter(seen_at__gt=Now() - FRESH).order_by("name")[:_SHOWN_NODES])
        stale = list(Node.objects.exclude(pk__in=[node.pk for node in fresh]).order_by("name")[:_SHOWN_NODES])
    except (DatabaseError, InterfaceError):
        logger.exception("the nodes cannot be read")
        return _unhealthy("the nodes cannot be read")
    refusing = [node for node in fresh if node.next_start_at is not None]
    failing = f"every start of a container fails on {_names(refusing)}: the log and the admin say why" if refusing else ""
    silent = f"no heartbeat from {_names(stale)}" if stale else ""
    if not fresh:
        return _unhealthy(silent or "no worker has ever reported a container engine")
    alive = f"heartbeat from {_names(fresh)}"
    warnings = [f"{node.name}: {warning}" for node in fresh for warning in node.warnings]
    message = "; ".join(filter(None, [alive, failing, silent, *warnings]))
    return _unhealthy(message) if len(refusing) == len(fresh) else _healthy(message)


def _names(nodes: list[Node]) -> str:
    return ", ".join(node.name for node in nodes)


def _healthy(message: str = "") -> dict[str, str]:
    return {"status": "healthy"} | ({"message": message} if message else {})


def _unhealthy(message: str) -> dict[str, str]:
    return {"status": "unhealthy", "message": message}


def _is_healthy(check: dict[str, str]) -> bool:
    return check["status"] == "healthy"
