"""The addresses of a job's events: what became of them, and sending them again."""

from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from rest_framework.request import Request

from callbacks.models import Attempt, Event
from callbacks.operators import event_history, redelivery
from jobs.api import job_list, job_operations
from jobs.api.job_views import no_such_job
from orchestrator_site.base.http.api_errors import ApiError
from orchestrator_site.base.http.api_views import ApiView, Parameters, json_response, rfc3339

_SEQUENCE_MAX = 2**53


class EventsView(ApiView):
    @job_operations.list_events
    def get(self, request: Request, job_id: str) -> HttpResponse:
        """A job's events, in order, with every attempt to deliver them."""
        parameters = Parameters(request._request, ("limit", "cursor", "state"))
        page = event_history.page_of_events(
            _stream(job_id),
            after=parameters.integer("cursor", 0, _SEQUENCE_MAX) or 0,
            limit=parameters.page_limit(),
            state=parameters.choice("state", Event.State.values),
        )
        body: dict[str, Any] = {"events": [_event(event) for event in page.events]}
        return json_response(body | ({} if page.next_after is None else {"nextCursor": str(page.next_after)}))


class RedeliverEventView(ApiView):
    @job_operations.redeliver_event
    def post(self, request: Request, job_id: str, event_id: UUID) -> HttpResponse:
        """Send one event again."""
        Parameters(request._request)
        if not redelivery.redeliver(_stream(job_id), event_id):
            raise ApiError(HTTPStatus.NOT_FOUND, "this job has no event with this id")
        return _accepted(1)


class RedeliverDeadEventsView(ApiView):
    @job_operations.redeliver_dead_events
    def post(self, request: Request, job_id: str) -> HttpResponse:
        """Send all of a job's dead events again."""
        Parameters(request._request)
        return _accepted(redelivery.redeliver_dead(_stream(job_id)))


def _stream(job_id: str) -> UUID:
    uuid = job_list.find_uuid(job_id)
    if uuid is None:
        raise no_such_job()
    return uuid


def _accepted(count: int) -> HttpResponse:
    return json_response({"redelivered": count}, status=HTTPStatus.ACCEPTED)


def _event(event: Event) -> dict[str, Any]:
    waits = {"nextAttemptAt": rfc3339(event.next_attempt_at)} if event.next_attempt_at is not None else {}
    return {
        "id": str(event.pk),
        "type": event.type,
        "time": event.time,
        "jobsequence": event.sequence,
        "state": event.state,
        **waits,
        "attempts": [_attempt(attempt) for attempt in event.attempts.all()],
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    said = {"status": attempt.status, "error": attempt.error or None, "answer": attempt.answer or None}
    known = {name: value for name, value in said.items() if value is not None}
    return {"time": rfc3339(attempt.time), "latencyMs": attempt.latency_ms, **known}
