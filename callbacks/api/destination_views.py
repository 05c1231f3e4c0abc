"""The addresses of destinations: where events go, and what an operator may do about one."""

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request

from callbacks.api import destination_operations
from callbacks.operators import destinations, redelivery
from callbacks.rules import destination_breaker
from orchestrator_site.base.egress.http_client import EgressDenied, origin_of
from orchestrator_site.base.http.api_errors import ApiError, InvalidRequest
from orchestrator_site.base.http.api_views import ApiView, Parameters, json_response, rfc3339

_ID_MAX = 2**53
_FIRST_MOMENT, _LAST_MOMENT = datetime(2000, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)  # for any database, in any zone


class DestinationsView(ApiView):
    @destination_operations.list_destinations
    def get(self, request: Request) -> HttpResponse:
        """Hosts that events go to, in the order in which they were first used."""
        parameters = Parameters(request._request, ("limit", "cursor", "origin", "paused"))
        limit = parameters.page_limit()
        rows = destinations.destinations().filter(pk__gt=parameters.integer("cursor", 0, _ID_MAX) or 0).order_by("pk")
        if (origin := parameters.text("origin")) is not None:
            rows = rows.filter(origin=_origin(origin))
        if (paused := parameters.choice("paused", ("true", "false"))) is not None:
            rows = rows.filter(paused=paused == "true")
        found = list(rows[: limit + 1])
        body: dict[str, Any] = {"destinations": [_summary(destination) for destination in found[:limit]]}
        return json_response(body | ({"nextCursor": str(found[limit - 1].pk)} if len(found) > limit else {}))


class DestinationView(ApiView):
    @destination_operations.get_destination
    def get(self, request: Request, destination_id: int) -> HttpResponse:
        """One host, with what is under way and what waits."""
        Parameters(request._request)
        return _answer(destination_id)


class PauseView(ApiView):
    @destination_operations.pause_destination
    def post(self, request: Request, destination_id: int) -> HttpResponse:
        """Send nothing there for now."""
        return _done(destinations.pause, request, destination_id)


class ResumeView(ApiView):
    @destination_operations.resume_destination
    def post(self, request: Request, destination_id: int) -> HttpResponse:
        """Send there again."""
        return _done(destinations.resume, request, destination_id)


class ResetView(ApiView):
    @destination_operations.reset_destination
    def post(self, request: Request, destination_id: int) -> HttpResponse:
        """Take it for well."""
        return _done(destinations.reset, request, destination_id)


class RedeliverView(ApiView):
    @destination_operations.redeliver_to_destination
    def post(self, request: Request, destination_id: int) -> HttpResponse:
        """Send again what died there since a time."""
        since = Parameters(request._request, ("since",)).moment("since")
        if since is None:
            raise InvalidRequest("say since when", field="since")
        redelivery.request_redelivery(_find(destination_id).pk, min(max(since, _FIRST_MOMENT), _LAST_MOMENT))
        return _answer(destination_id, HTTPStatus.ACCEPTED)


def _done(act: Callable[[int], None], request: Request, destination_id: int) -> HttpResponse:
    """An action that is done when it is answered."""
    Parameters(request._request)
    act(_find(destination_id).pk)
    return _answer(destination_id)


def _origin(url: str) -> str:
    try:
        return origin_of(url)
    except EgressDenied as error:
        raise InvalidRequest("write an http or https URL", field="origin") from error


def _no_such_destination() -> ApiError:
    return ApiError(HTTPStatus.NOT_FOUND, "there is no destination with this id")


def _find(destination_id: int) -> Any:
    """The row, with the database's time as `now`."""
    destination = destinations.destinations().filter(pk=min(destination_id, _ID_MAX)).first()
    if destination is None:
        raise _no_such_destination()
    return destination


def _answer(destination_id: int, status: int = HTTPStatus.OK) -> HttpResponse:
    destination = _find(destination_id)
    load = destinations.load(destination)
    return json_response({**_summary(destination), "underWay": load.in_flight, "waiting": load.waiting}, status=status)


def _summary(destination: Any) -> dict[str, Any]:
    moments = {"openUntil": destination.open_until, "throttledUntil": destination.throttled_until}
    since, until = destination.revive_since, destination.revive_until
    return {
        "id": destination.pk,
        "origin": destination.origin,
        "paused": destination.paused,
        "breaker": destination_breaker.state(destination, destination.now),
        "failures": destination.failures,
        "slow": destination_breaker.is_slow(destination),
        **{name: rfc3339(moment) for name, moment in moments.items() if moment is not None},
        "atOnce": destinations.max_in_flight(destination),
        **({"redelivering": {"since": rfc3339(since), "until": rfc3339(until)}} if since and until else {}),
    }
