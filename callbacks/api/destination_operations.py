"""What the OpenAPI document says of destinations."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema

from callbacks.operators.destinations import MAX_WAITING_COUNTED
from callbacks.rules.destination_breaker import BreakerState
from orchestrator_site.base.http.openapi_parts import (
    CURSOR,
    MOMENT,
    PAGE_LIMIT,
    Schema,
    answer,
    array,
    choice,
    in_path,
    integer,
    query,
    record,
    responses,
    string,
)

Handler = TypeVar("Handler", bound=Callable[..., Any])
_DESTINATION: Final = {
    "id": integer(1),
    "origin": string(description="Scheme, host and port."),
    "paused": {"type": "boolean", "description": "An operator has stopped deliveries there."},
    "breaker": choice(BreakerState, description="`half_open`: one delivery at a time finds out whether it is well again."),
    "failures": integer(0, description="Tries in a row without an answer, or with a 5xx."),
    "openUntil": {**MOMENT, "description": "Nothing is sent before, where the breaker is open."},
    "throttledUntil": {**MOMENT, "description": "Nothing is sent before: it answered 429."},
    "slow": {
        "type": "boolean",
        "description": "Its answers take more than a second; deliveries there get a share of the threads.",
    },
    "atOnce": integer(
        1, description="How many deliveries it gets at once; fewer after failures and slow answers, more after good ones."
    ),
    "redelivering": record(
        {"since": MOMENT, "until": MOMENT},
        ("since", "until"),
        description="Events that died between these times are being sent again.",
    ),
}
_ALWAYS: Final = ("id", "origin", "paused", "breaker", "failures", "slow", "atOnce")
COMPONENTS: Final[dict[str, Schema]] = {
    "DestinationSummary": record(_DESTINATION, _ALWAYS),
    "Destination": record(
        {
            **_DESTINATION,
            "underWay": integer(0, description="Deliveries at this moment."),
            "waiting": integer(
                0, MAX_WAITING_COUNTED, description="Jobs whose events wait for it; at most this many are counted."
            ),
        },
        (*_ALWAYS, "underWay", "waiting"),
    ),
    "DestinationPage": record({"destinations": array("DestinationSummary"), "nextCursor": string()}, ("destinations",)),
}
_ID = in_path("destination_id", integer(1), "The destination's id.")


def _operation(
    name: str, summary: str, description: str, status: int = 200, *parameters: OpenApiParameter
) -> Callable[[Handler], Handler]:
    done = answer("Destination", "The destination as it now is.", status)
    decorator: Callable[[Handler], Handler] = extend_schema(
        operation_id=name,
        summary=summary,
        description=description,
        request=None,
        parameters=[_ID, *parameters],
        responses=responses(done, 404),
    )
    return decorator


list_destinations = extend_schema(
    operation_id="listDestinations",
    summary="List the hosts that events go to",
    description="In the order in which they were first used.",
    parameters=[
        PAGE_LIMIT,
        CURSOR,
        query("origin", string(), "That of this URL, which may be any at the host."),
        query("paused", choice(["true", "false"]), ""),
    ],
    responses=responses(answer("DestinationPage", "A page of them.")),
)
get_destination = _operation("getDestination", "Look at a host", "Its breaker, and how much waits for it.")
pause_destination = _operation(
    "pauseDestination",
    "Send nothing to a host for now",
    "What is under way ends. Events wait, at no cost of a try, and die 24 hours after they happened all the same.",
)
resume_destination = _operation("resumeDestination", "Send to a paused host again", "What waits is sent, the oldest first.")
reset_destination = _operation(
    "resetDestination",
    "Take a host for well",
    "Closes its breaker, forgets a 429, and tries at once what the host left unanswered.",
)
redeliver_to_destination = _operation(
    "redeliverToDestination",
    "Send a host's dead events again",
    "Those of all jobs that died since that time, in order within each job. It is done in the background, whatever crashes.",
    202,
    OpenApiParameter(
        "since", OpenApiTypes.DATETIME, OpenApiParameter.QUERY, required=True, description="RFC 3339 with an offset."
    ),
)


def add_components(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """drf-spectacular's postprocessing hook."""
    result["components"]["schemas"] |= COMPONENTS
    return result
