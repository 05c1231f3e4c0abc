"""The endpoints of a job's events, which show their deliveries and redeliver them."""

from http import HTTPStatus
from uuid import UUID

from django.http import HttpResponse
from rest_framework.request import Request

from callbacks.operators import event_history, redelivery
from jobs.api import examples, job_list
from jobs.api.job_answers import Event, Redelivery
from jobs.api.job_views import OneJobView
from jobs.api.query_parameters import EventListQuery
from orchestrator_site.base.http.api_errors import json_response
from orchestrator_site.base.http.fields import Text
from orchestrator_site.base.http.openapi import NamespaceQuery, answer, operation
from orchestrator_site.base.http.pagination import Page, pages_of

_ONE_EVENT = {"One event": examples.REDELIVERED}


class EventsView(OneJobView):
    tag = "events"
    pagination_class = pages_of("events")

    @operation(
        "listEvents",
        "List the events of a job and their deliveries",
        "Events are listed in order, each with all attempts to deliver it. A page may be short and still have a `nextCursor`. "
        "Only events that are sent are stored: a job without a callback has none.\n\n"
        "A `pending` event has not been delivered yet; `nextAttemptAt` says when it is tried again. A `dead` one is not tried "
        "any more, unless it is redelivered.",
        query=EventListQuery,
        answers=answer(Event(many=True), "A page of events, in order.", examples={"One event": examples.EVENTS}),
    )
    def get(self, request: Request, job_id: str) -> HttpResponse:  # noqa: ARG002
        stream = self.found(job_list.find_uuid(self.home, job_id))

        def find(*, limit: int, cursor: int = 0, state: str | None = None) -> Page[object]:
            page = event_history.page_of_events(stream, after=cursor, limit=limit, state=state)
            return Page(page.events, page.next_after)

        return self.answer_page(Event, find)


class RedeliverEventView(OneJobView):
    tag = "events"
    path_fields = {**OneJobView.path_fields, "event_id": Text(schema={"format": "uuid"}, help_text="The id of the event.")}
    not_found = "there is no job or event with this id"

    @operation(
        "redeliverEvent",
        "Redeliver an event",
        "The event is sent again, whatever its state, with the same id and with as many attempts as a new event. "
        "An event that waits for its next attempt is sent now. A receiver recognizes what it has had by `source` and `id`.",
        query=NamespaceQuery,
        answers=answer(Redelivery, "The event will be sent before later events of the job.", 202, examples=_ONE_EVENT),
    )
    def post(self, request: Request, job_id: str, event_id: UUID) -> HttpResponse:  # noqa: ARG002
        self.found(redelivery.redeliver(self.found(job_list.find_uuid(self.home, job_id)), event_id) or None)
        return _accepted(1)


class RedeliverDeadEventsView(OneJobView):
    tag = "events"

    @operation(
        "redeliverDeadEvents",
        "Redeliver all dead events of a job",
        "The events are sent again in order, with the same ids and with as many attempts as new events.",
        query=NamespaceQuery,
        answers=answer(Redelivery, "The events will be sent, in order.", 202, examples=_ONE_EVENT),
    )
    def post(self, request: Request, job_id: str) -> HttpResponse:  # noqa: ARG002
        return _accepted(redelivery.redeliver_dead(self.found(job_list.find_uuid(self.home, job_id))))


def _accepted(count: int) -> HttpResponse:
    return json_response(Redelivery.show(count), status=HTTPStatus.ACCEPTED)
