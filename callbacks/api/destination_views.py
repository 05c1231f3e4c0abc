"""The endpoints of destinations: the origins that events are sent to, and what an operator can do about one."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.serializers import ValidationError

from callbacks.api import examples
from callbacks.api.destination_answers import Destination, DestinationSummary
from callbacks.delivery import destination_rows
from callbacks.operators import destinations, redelivery
from orchestrator_site.base.egress.http_client import EgressDenied, origin_of
from orchestrator_site.base.http import error_texts
from orchestrator_site.base.http.api_errors import ApiError, json_response
from orchestrator_site.base.http.api_views import ApiView
from orchestrator_site.base.http.fields import Choice, Integer, Text, Time
from orchestrator_site.base.http.openapi import NoParameters, answer, operation
from orchestrator_site.base.http.pagination import MAX_NUMBER, Page, PageQuery, pages_of
from orchestrator_site.base.http.serializers import QuerySerializer

_FIRST_TIME, _LAST_TIME = datetime(2000, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)  # for any database, in any zone
_DESTINATION = "The current state of the destination."


def _origin(url: str) -> str:
    try:
        return origin_of(url)
    except EgressDenied as error:
        raise ValidationError("must be an http or https URL") from error


class DestinationListQuery(PageQuery):
    """The destinations to list."""

    origin = Text(parse=_origin, required=False, help_text="Only the destination of this URL.")
    paused = Choice(
        ["true", "false"],
        parse=lambda text: text == "true",
        required=False,
        help_text="Only destinations that are paused (`true`) or not (`false`).",
    )


class RedeliverQuery(QuerySerializer):
    """The dead events to redeliver."""

    since = Time(parse=lambda time: min(max(time, _FIRST_TIME), _LAST_TIME), help_text="A time in RFC 3339 with an offset.")


class _SharedView(ApiView):
    """A view of what all namespaces share."""

    tag = "destinations"

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if not self.access.sees_what_is_shared:
            raise ApiError(HTTPStatus.FORBIDDEN, error_texts.SHARED)


class DestinationsView(_SharedView):
    pagination_class = pages_of("destinations")

    @operation(
        "listDestinations",
        "List destinations",
        "A destination is an origin that events are sent to: scheme, host and port. The first used comes first. With "
        "`origin` there is at most one.",
        query=DestinationListQuery,
        answers=answer(
            DestinationSummary(many=True), "A page of destinations.", examples={"One destination": examples.DESTINATIONS}
        ),
    )
    def get(self, request: Request) -> HttpResponse:  # noqa: ARG002
        return self.answer_page(DestinationSummary, _page_of_destinations)


def _page_of_destinations(*, limit: int, cursor: int = 0, **filters: Any) -> Page[Any]:
    found = list(destination_rows.with_database_time().filter(pk__gt=cursor, **filters).order_by("pk")[: limit + 1])
    return Page(found[:limit], found[limit - 1].pk if len(found) > limit else None)


class _OneDestinationView(_SharedView):
    path_fields = {"destination_id": Integer(1, help_text="The id of the destination.")}
    not_found = "there is no destination with this id"

    def find(self, destination_id: int) -> Any:
        """Return the row, with the time of the database as `now`."""
        return self.found(destination_rows.with_database_time().filter(pk=min(destination_id, MAX_NUMBER)).first())

    def respond(self, destination_id: int, status: int = 200) -> HttpResponse:
        destination = self.find(destination_id)
        destination.load = destinations.load(destination)
        return json_response(Destination.show(destination), status=status)


class DestinationView(_OneDestinationView):
    @operation(
        "getDestination",
        "Get a destination",
        "Includes what is in flight and what waits. While `breaker` is `open`, or until `throttledUntil` "
        "or `limitedUntil`, nothing is sent: "
        "events wait without using up attempts.",
        answers=answer(
            Destination, _DESTINATION, examples={"Healthy": examples.HEALTHY, "Suspended after failures": examples.SUSPENDED}
        ),
    )
    def get(self, request: Request, destination_id: int) -> HttpResponse:  # noqa: ARG002
        return self.respond(destination_id)


def _action_view(
    operation_id: str,
    summary: str,
    description: str,
    action: Callable[..., object],
    *,
    example: Mapping[str, Any],
    status: int = 200,
    query: type[QuerySerializer] = NoParameters,
) -> type[ApiView]:
    """Return the view of an action, which is called with the destination's key and the query parameters."""

    class ActionView(_OneDestinationView):
        @operation(
            operation_id,
            summary,
            description,
            query=query,
            answers=answer(Destination, _DESTINATION, status, examples={"Afterwards": example}),
        )
        def post(self, request: Request, destination_id: int) -> HttpResponse:  # noqa: ARG002
            action(self.find(destination_id).pk, **self.query)
            return self.respond(destination_id, status)

    return ActionView


PauseView = _action_view(
    "pauseDestination",
    "Pause deliveries to a destination",
    "Deliveries in flight are completed. Events wait without using up attempts, and still die after 24 hours.",
    destinations.pause,
    example=examples.PAUSED,
)
ResumeView = _action_view(
    "resumeDestination",
    "Resume deliveries to a destination",
    "Waiting events are sent, the oldest first.",
    destinations.resume,
    example=examples.HEALTHY,
)
ResetView = _action_view(
    "resetDestination",
    "Reset a destination",
    "Closes the breaker, ends throttling after a 429, and retries now the events that got no response.",
    destinations.reset,
    example=examples.HEALTHY,
)
RedeliverView = _action_view(
    "redeliverToDestination",
    "Redeliver the dead events of a destination",
    "Sends the events of all jobs that died since that time, in order within each job. "
    "This is done in the background, and continues after a crash; until it is done, the destination has `redelivering`.",
    redelivery.request_redelivery,
    example=examples.REDELIVERING,
    status=202,
    query=RedeliverQuery,
)
