"""`/livez` and `/readyz`, for load balancers and monitoring. They need no API key and accept any host name.

Messages never repeat a driver's error: it may contain addresses and user names, and anyone can send a request.
"""

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from dramatiq.errors import BrokerConnectionError

from jobs.healthy_nodes import healthy_nodes
from jobs.models import Node
from orchestrator_site.base import broker
from orchestrator_site.base.config.open_api import open_api_warning
from orchestrator_site.base.db.bounded_connections import answer_limit
from orchestrator_site.base.db.postgresql import check_pool
from orchestrator_site.base.egress.errors import ProxyFailed
from orchestrator_site.base.egress.proxy_tunnels import connect_to_proxy
from orchestrator_site.base.http.api_errors import error_response
from orchestrator_site.base.intervals import WebIntervals

logger = logging.getLogger(__name__)

_MAX_SHOWN_NODES: Final = 20


class ProbeMiddleware:
    """Middleware that answers the probes before any other checks the host name or loads a session."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        probe = PROBES.get(request.path_info)
        if probe is None:
            return self._get_response(request)
        if request.method not in ("GET", "HEAD"):
            return error_response(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET, HEAD"})
        response = probe()
        response["Cache-Control"] = "no-store"
        return response


def livez() -> HttpResponse:
    """Return 200: the process answers."""
    return JsonResponse({"status": "healthy"})


def readyz(intervals: WebIntervals = WebIntervals()) -> HttpResponse:
    """Return 200 if a job created now would be stored and run, else 503; the body has a status for each dependency."""
    with answer_limit(intervals.health_query):
        database = _check_database(intervals)
        engine = _check_engine() if _is_healthy(database) else _unhealthy("unknown, because the database is unreachable")
    checks = {"database": database, "broker": _check_broker(), "engine": engine, **_check_proxy(intervals), **_check_api()}
    healthy = all(_is_healthy(check) for check in checks.values())
    return JsonResponse(
        {"status": "healthy" if healthy else "unhealthy", "checks": checks},
        status=HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE,
        json_dumps_params={"ensure_ascii": False},
    )


def _check_database(intervals: WebIntervals) -> dict[str, str]:
    try:
        check_pool(connection, intervals.health_query)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (DatabaseError, InterfaceError) as error:
        logger.error("the database is unreachable: %s", error)
        return _unhealthy("the database is unreachable")
    return _healthy()


def _check_broker() -> dict[str, str]:
    try:
        broker.ping()
    except (BrokerConnectionError, OSError) as error:
        logger.error("the broker is unreachable: %s", error)
        return _unhealthy("the broker is unreachable: jobs run up to 1 s late, and events are queued")
    return _healthy()


def _check_proxy(intervals: WebIntervals) -> dict[str, dict[str, str]]:
    """Return the check of EGRESS_PROXY, nothing if that is not set."""
    proxy = settings.CONFIGURATION.egress_proxy
    if proxy is None:
        return {}
    try:
        connect_to_proxy(proxy, intervals.health_proxy).close()
    except ProxyFailed:
        return {"egress_proxy": _unhealthy("the proxy is unreachable: downloads and uploads fail, and events are queued")}
    return {"egress_proxy": _healthy()}


def _check_api() -> dict[str, dict[str, str]]:
    """Return a warning if other machines can call the API without a key, else nothing. The service works nevertheless."""
    warning = open_api_warning(settings.CONFIGURATION)
    return {"api": _healthy(warning)} if warning else {}


def _check_engine() -> dict[str, str]:
    """Return healthy if at least one node has a recent heartbeat (by the database's clock) and starts containers.

    The message names nodes without a heartbeat, nodes that fail to start containers, drained nodes, and limits that are not
    enforced.
    """
    try:
        fresh = list(healthy_nodes().order_by("name")[:_MAX_SHOWN_NODES])
        stale = list(Node.objects.exclude(pk__in=[node.pk for node in fresh]).order_by("name")[:_MAX_SHOWN_NODES])
    except (DatabaseError, InterfaceError) as error:
        logger.error("the nodes cannot be read: %s", error)
        return _unhealthy("the nodes cannot be read from the database")
    refusing = [node for node in fresh if node.next_start_at is not None]
    failing = f"containers fail to start on {_names(refusing)}: see the log or the admin" if refusing else ""
    silent = f"no heartbeat from {_names(stale)}" if stale else ""
    if not fresh:
        return _unhealthy(silent or "no worker has connected to a container engine yet")
    alive = f"heartbeat from {_names(fresh)}"
    warnings = [f"{node.name}: {warning}" for node in fresh for warning in node.warnings]
    drained = [node for node in fresh if node.drained]  # on purpose, so that is not unhealthy
    resting = f"drained: {_names(drained)}" if drained else ""
    message = "; ".join(filter(None, [alive, failing, silent, resting, *warnings]))
    return _unhealthy(message) if len(refusing) == len(fresh) else _healthy(message)


def _names(nodes: list[Node]) -> str:
    return ", ".join(node.name for node in nodes)


def _healthy(message: str = "") -> dict[str, str]:
    return {"status": "healthy"} | ({"message": message} if message else {})


def _unhealthy(message: str) -> dict[str, str]:
    return {"status": "unhealthy", "message": message}


def _is_healthy(check: dict[str, str]) -> bool:
    return check["status"] == "healthy"


PROBES: Final[Mapping[str, Callable[[], HttpResponse]]] = {"/livez": livez, "/readyz": readyz}
