"""The endpoints of jobs: a view makes one call and answers; no view waits for an engine."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.request import Request
from rest_framework.response import Response

from jobs import services
from jobs.api import examples, job_list, limits, log_stream, stored_log
from jobs.api.fields import JobId
from jobs.api.job_answers import Accepted, Job, JobSummary, LogPage
from jobs.api.new_job import NewJob
from jobs.api.query_parameters import JobListQuery, LogQuery, WaitQuery
from jobs.api.stored_log import Log
from jobs.errors import IdTaken, TooManyUndecided
from jobs.models import Job as StoredJob
from jobs.services import ID_TAKEN, JobNotFound
from jobs.states import UNDECIDED
from orchestrator_site.base.access import scopes, throttles
from orchestrator_site.base.access.models import DEFAULT
from orchestrator_site.base.db.transactions import release_connection
from orchestrator_site.base.http import error_texts
from orchestrator_site.base.http.api_errors import ApiError, InvalidRequest, json_response
from orchestrator_site.base.http.api_keys import check_still_known, check_throttle, is_still_known
from orchestrator_site.base.http.api_views import ApiView
from orchestrator_site.base.http.long_polls import look_until
from orchestrator_site.base.http.openapi import (
    NAMESPACE,
    NamespaceQuery,
    answer,
    described,
    operation,
    text_answer,
    too_many_requests,
    unavailable,
)
from orchestrator_site.base.http.pagination import pages_of
from orchestrator_site.base.http.pauses import Pauses
from orchestrator_site.base.intervals import AccessIntervals, WebIntervals
from orchestrator_site.base.log_context import add_fields

T = TypeVar("T")

TOO_MANY_STREAMS = "too many clients follow logs; try again"
_PIECE_LENGTH = 32 * 1024  # characters of a log that are sent at a time
_LOCATION = OpenApiParameter(
    "Location", location=OpenApiParameter.HEADER, response=[202], required=True, description="The path of the job."
)
_LOG = "The log, in the form that `Accept` selects."
_LAST_EVENT_ID = OpenApiParameter(
    log_stream.LAST_EVENT_ID,
    {"type": "string", "pattern": f"^({log_stream.EVENT_ID_PATTERN})?$"},
    OpenApiParameter.HEADER,
    description="Only for `text/event-stream`: the `id` of the last event that the client has.",
)


class JobsView(ApiView):
    tag = "jobs"
    pagination_class = pages_of("jobs")

    @operation(
        "createJob",
        "Run a job",
        "Responds as soon as the job is stored durably; the job then runs without further requests, even if the service is "
        "restarted. It does not wait for a node: `waiting` of the job says what it waits for.\n\n"
        "**Choose the `id` yourself to be able to repeat the request**: if there is no response, or a 5xx, send it again with "
        "the same `id`. The job runs once, and a 409 means that the earlier request has stored it (or that another job has this "
        "`id`). Without an `id` the service makes one, and a repeated request runs a second job.\n\n"
        "Only `image` is required. A member that is `null` counts as absent; an unknown member is an error.",
        query=NamespaceQuery,
        body=NewJob,
        bodies={"A shell command": examples.SHELL_COMMAND, "Files and a callback": examples.FILES},
        invalid=examples.WRONG_URL,
        answers=answer(Accepted, "The job is stored.", 202, examples={"Accepted": examples.ACCEPTED})
        | described({409: ID_TAKEN}, field="id")
        | too_many_requests("the namespace has reached its limit of undecided jobs, which is 100", error_texts.TOO_MANY_JOBS),
        parameters=[_LOCATION],
    )
    def post(self, request: Request) -> HttpResponse:
        if self.access.key:
            claims = (throttles.JOBS_OF_KEY, self.access.key), (throttles.JOBS_OF_ADDRESS, throttles.client_of(request._request))
            check_throttle(*claims, sentence=error_texts.TOO_MANY_JOBS)
        namespace = self.namespace or DEFAULT
        if self.access.namespace is None and not scopes.exists(namespace):
            raise InvalidRequest("there is no such namespace", field=NAMESPACE)
        try:
            job = services.create(self.body, namespace, self.access.client)
        except IdTaken as error:
            raise ApiError(HTTPStatus.CONFLICT, ID_TAKEN, field="id") from error
        except TooManyUndecided as error:
            retry_after = str(round(AccessIntervals().retry_undecided))
            raise ApiError(HTTPStatus.TOO_MANY_REQUESTS, str(error), headers={"Retry-After": retry_after}) from error
        add_fields(job=job.id)
        return json_response(Accepted.show(job), status=HTTPStatus.ACCEPTED, headers={"Location": self._location(job)})

    def _location(self, job: StoredJob) -> str:
        """Return the path of a job, for the key that created it."""
        is_implied = job.namespace in (self.access.namespace, DEFAULT)
        return f"/v1/jobs/{job.id}" if is_implied else f"/v1/jobs/{job.id}?{NAMESPACE}={job.namespace}"

    @operation(
        "listJobs",
        "List jobs",
        "The newest job comes first. A page may be short, even empty, and still have a `nextCursor`; the last one has none. Jobs "
        "created after the first page do not appear on later pages.\n\n"
        "A job must match all filters. `meta.<name>=<value>` selects jobs whose `meta` has this value; it may be given for "
        "several names.",
        query=JobListQuery,
        answers=answer(JobSummary(many=True), "A page of jobs, newest first.", examples={"One job": examples.JOBS}),
    )
    def get(self, request: Request) -> HttpResponse:  # noqa: ARG002
        of_namespace: dict[str, Any] = {} if self.namespace is None else {"namespace": self.namespace}
        return self.answer_page(JobSummary, partial(job_list.page_of_jobs, **of_namespace))


class OneJobView(ApiView):
    """An endpoint of one job."""

    tag = "jobs"
    path_fields = {"job_id": JobId(help_text="The id of the job.")}
    not_found = "there is no job with this id"

    @property
    def home(self) -> str:
        """The namespace in which the job is looked for."""
        return self.namespace or DEFAULT

    def wait(self, look: Callable[[], T], enough: Callable[[T], bool], seconds: float) -> T:
        """Return what `look` sees, as `look_until` does. Raise a 401 if the key is not valid any more after that."""
        seen = look_until(look, enough, seconds)
        if seconds:
            check_still_known(self.access)
        return seen


class JobView(OneJobView):
    @operation(
        "getJob",
        "Get a job, or wait for it",
        "With `wait`, responds as soon as the job's status is final, or when the time is up. It may respond earlier if too many "
        "clients wait or the service is being restarted: repeat the request while `status` is `accepted` or `running`.\n\n"
        "`status` goes from `accepted` to `running` and then to one of the final values `completed` (exit code 0), `failed` "
        "(`reason` says why) and `cancelled`. A job that never ran goes from `accepted` to a final value. The status is final "
        "when the process has ended; the rest of the log and the outputs follow, and `completedAt` is set after the last "
        "output.\n\n"
        "What is not known yet is left out. Secrets are never shown: environment, headers, URLs and the key of the callback.",
        query=WaitQuery,
        answers=answer(
            Job,
            "The job.",
            examples={"Completed": examples.JOB_COMPLETED, "Waiting": examples.JOB_WAITING, "Failed": examples.JOB_FAILED},
        ),
    )
    def get(self, request: Request, job_id: str) -> HttpResponse:  # noqa: ARG002
        if seconds := self.query["wait"]:
            statuses = StoredJob.objects.filter(namespace=self.home, id=job_id).values_list("status", flat=True)
            self.wait(statuses.first, lambda status: status not in UNDECIDED, seconds)
        return json_response(Job.show(self.found(job_list.find_job(self.home, job_id))))

    @operation(
        "cancelJob",
        "Cancel a job",
        "A job that has not ended is `cancelled` when this responds; its process gets SIGTERM, and SIGKILL after a grace "
        "period. If the process has ended, only the remaining outputs are cancelled. A job that is complete does not change. "
        "The request can be repeated.",
        query=NamespaceQuery,
        answers={204: OpenApiResponse(description="The job's status is final.")},
    )
    def delete(self, request: Request, job_id: str) -> HttpResponse:  # noqa: ARG002
        try:
            services.cancel(job_id, self.home)
        except JobNotFound:
            self.found(None)
        return Response(status=HTTPStatus.NO_CONTENT)


class LogsView(OneJobView):
    tag = "logs"

    @operation(
        "getLogs",
        "Read or follow the log of a job",
        "`Accept` selects one of three forms:\n\n"
        "- `text/plain`, the default: what the job printed, byte for byte if it is UTF-8.\n"
        "- `application/json`: a page of lines. To follow the log, repeat the request with `after=<next>&wait=30` until "
        "`complete` is true.\n"
        "- `text/event-stream`: server-sent events with the lines as they are stored. The `data` of each is a page as in JSON; "
        "`limit` is the maximum number of lines of one. The event `end` is the last one. A client that reconnects sends the `id` "
        "of the last event that it has as `Last-Event-ID`, which replaces `after` and `tail`, and gets the rest; after `end` it "
        "gets 204. `wait` is refused. While too many clients follow logs, others get 503.",
        query=LogQuery,
        answers={
            **answer(LogPage, _LOG, examples={"The end of a log": examples.LOG_PAGE}),
            **text_answer("text/plain", _LOG, examples={"A whole log": examples.LOG_TEXT}),
            **text_answer(log_stream.MEDIA_TYPE, _LOG, examples={"A whole log": examples.LOG_EVENTS}),
            204: OpenApiResponse(description="Only for `text/event-stream`: the client has had the event `end`."),
            **unavailable(TOO_MANY_STREAMS),
        },
        parameters=[_LAST_EVENT_ID],
    )
    def get(self, request: Request, job_id: str) -> HttpResponseBase:
        log = self.found(stored_log.find_log(namespace=self.home, id=job_id))
        # of equally wanted types the first one; text if none is wanted
        media_type = request._request.get_preferred_type(["text/plain", "application/json", log_stream.MEDIA_TYPE])
        response = self._stream(request, log) if media_type == log_stream.MEDIA_TYPE else self._page(log, media_type)
        response["Vary"] = "Accept"
        return response

    def _page(self, log: Log, media_type: str | None) -> HttpResponseBase:
        stream, tail, seconds = self.query.get("stream"), self.query.get("tail"), self.query["wait"]
        after, limit = self.query["after"], self.query.get("limit")
        if tail is not None:
            after = max(after, stored_log.before_tail(log, count=tail, stream=stream))
        if media_type == "application/json":
            limit = limit or max(tail or 0, limits.LOG_LINES_DEFAULT)
            return json_response(LogPage.show(self._read_lines(log, after, limit, stream, seconds)))
        if seconds:
            self._read_lines(log, after, 1, stream, seconds)
        parts = stored_log.read_text(log, after=after, limit=limit, stream=stream)
        return StreamingHttpResponse(_without_connection(parts), content_type="text/plain; charset=utf-8")

    def _read_lines(self, log: Log, after: int, limit: int, stream: str | None, seconds: float) -> stored_log.LogPage:
        """Return a page of the log. Wait for its first line or the end of the log."""

        def look() -> stored_log.LogPage:
            nonlocal after
            now = stored_log.find_log(uuid=log.job) or replace(log, ended=True)  # if the job was deleted
            page = stored_log.read_page(now, after=after, limit=limit, stream=stream, length=limits.LOG_PAGE_LENGTH)
            after = page.read_to
            return page

        return self.wait(look, lambda page: bool(page.lines) or page.complete, seconds)

    def _stream(self, request: Request, log: Log) -> HttpResponseBase:
        stream, tail, after = self.query.get("stream"), self.query.get("tail"), self.query["after"]
        if self.query["wait"]:
            raise InvalidRequest("a stream of events waits by itself", field="wait")
        last = log_stream.read_last_event_id(request.headers.get(log_stream.LAST_EVENT_ID, ""), log)
        if last is not None:
            after, has_ended = last
            if has_ended:
                return HttpResponse(status=HTTPStatus.NO_CONTENT)  # which browsers take as: do not reconnect
        elif tail is not None:
            after = max(after, stored_log.before_tail(log, count=tail, stream=stream))
        pauses = Pauses.of(request.META)
        if pauses is not None and request.method != "HEAD" and not pauses.reserve(self.access.sharer):
            retry_after = str(round(WebIntervals().retry_busy))
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, TOO_MANY_STREAMS, headers={"Retry-After": retry_after})
        limit = self.query.get("limit", limits.LOG_LINES_DEFAULT)
        is_allowed = partial(is_still_known, self.access)
        events = log_stream.LogEvents(log, after=after, limit=limit, stream=stream, pauses=pauses, is_allowed=is_allowed)
        return StreamingHttpResponse(iter(events), headers=log_stream.HEADERS)


def _without_connection(parts: Iterator[str]) -> Iterator[bytes]:
    """Yield small pieces without holding a database connection, since a client may read slowly."""
    for part in parts:
        release_connection()
        for start in range(0, len(part), _PIECE_LENGTH):
            yield part[start : start + _PIECE_LENGTH].encode()
