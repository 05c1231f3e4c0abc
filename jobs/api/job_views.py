"""The endpoints of jobs: a view makes one call and answers; no view waits for an engine."""

from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.request import Request
from rest_framework.response import Response

from jobs import services
from jobs.api import job_list, limits, stored_log
from jobs.api.fields import JobId
from jobs.api.job_answers import Accepted, Job, JobSummary, LogPage
from jobs.api.new_job import NewJob
from jobs.api.query_parameters import JobListQuery, LogQuery, WaitQuery
from jobs.api.stored_log import Log
from jobs.errors import IdTaken
from jobs.models import Job as StoredJob
from jobs.services import ID_TAKEN, JobNotFound
from jobs.states import UNDECIDED
from orchestrator_site.base.db.transactions import release_connection
from orchestrator_site.base.http.api_errors import ApiError, json_response
from orchestrator_site.base.http.api_views import ApiView
from orchestrator_site.base.http.long_polls import look_until
from orchestrator_site.base.http.openapi import answer, described, operation
from orchestrator_site.base.http.pagination import pages_of

_PIECE_LENGTH = 32 * 1024  # characters of a log that are sent at a time
_LOCATION = OpenApiParameter(
    "Location", location=OpenApiParameter.HEADER, response=[202], required=True, description="The path of the job."
)


class JobsView(ApiView):
    pagination_class = pages_of("jobs")

    @operation(
        "createJob",
        "Run a job",
        "Responds as soon as the job is stored durably; the job then runs without further requests.",
        body=NewJob,
        answers=answer(Accepted, "The job is stored.", 202) | described({409: ID_TAKEN}),
        parameters=[_LOCATION],
    )
    def post(self, request: Request) -> HttpResponse:  # noqa: ARG002
        try:
            job = services.create(self.body)
        except IdTaken as error:
            raise ApiError(HTTPStatus.CONFLICT, ID_TAKEN, field="id") from error
        return json_response(Accepted.show(job), status=HTTPStatus.ACCEPTED, headers={"Location": f"/v1/jobs/{job.id}"})

    @operation(
        "listJobs",
        "List jobs",
        "The newest job comes first. A page may be short, even empty, and still have a `nextCursor`.\n\n"
        "`meta.<name>=<value>` selects jobs whose `meta` has this value; it may be given for several names.",
        query=JobListQuery,
        answers=answer(JobSummary(many=True), "A page of jobs, newest first."),
    )
    def get(self, request: Request) -> HttpResponse:  # noqa: ARG002
        return self.answer_page(JobSummary, job_list.page_of_jobs)


class OneJobView(ApiView):
    """An endpoint of one job."""

    path_fields = {"job_id": JobId(help_text="The id of the job.")}
    not_found = "there is no job with this id"


class JobView(OneJobView):
    @operation(
        "getJob",
        "Get a job, or wait for it",
        "With `wait`, responds as soon as the job's status is final, or when the time is up.",
        query=WaitQuery,
        answers=answer(Job, "The job."),
    )
    def get(self, request: Request, job_id: str) -> HttpResponse:  # noqa: ARG002
        if seconds := self.query["wait"]:
            statuses = StoredJob.objects.filter(id=job_id).values_list("status", flat=True)
            look_until(statuses.first, lambda status: status not in UNDECIDED, seconds)
        return json_response(Job.show(self.found(job_list.find_job(job_id))))

    @operation(
        "cancelJob",
        "Cancel a job",
        "If the process of the job has ended, only its outputs are cancelled. A job that is complete does not change.",
        answers={204: OpenApiResponse(description="The job's status is final.")},
    )
    def delete(self, request: Request, job_id: str) -> HttpResponse:  # noqa: ARG002
        try:
            services.cancel(job_id)
        except JobNotFound:
            self.found(None)
        return Response(status=HTTPStatus.NO_CONTENT)


class LogsView(OneJobView):
    @operation(
        "getLogs",
        "Read or follow the log of a job",
        "Returns plain text, or a page of lines in JSON that says where the next page begins.",
        query=LogQuery,
        answers={
            (200, "text/plain"): OpenApiResponse(OpenApiTypes.STR, "What the job printed, byte for byte if it is UTF-8."),
            **answer(LogPage, "A page of lines, if `Accept` prefers JSON."),
        },
    )
    def get(self, request: Request, job_id: str) -> HttpResponseBase:
        log = self.found(stored_log.find_log(id=job_id))
        stream, tail, seconds = self.query.get("stream"), self.query.get("tail"), self.query["wait"]
        after, limit = self.query["after"], self.query.get("limit")
        if tail is not None:
            after = max(after, stored_log.before_tail(log, count=tail, stream=stream))
        # of two equally wanted types the first one; text if neither is wanted
        if request._request.get_preferred_type(["text/plain", "application/json"]) == "application/json":
            limit = limit or max(tail or 0, limits.LOG_LINES_DEFAULT)
            response: HttpResponseBase = json_response(LogPage.show(_read_lines(log, after, limit, stream, seconds)))
        else:
            if seconds:
                _read_lines(log, after, 1, stream, seconds)
            parts = stored_log.read_text(log, after=after, limit=limit, stream=stream)
            response = StreamingHttpResponse(_without_connection(parts), content_type="text/plain; charset=utf-8")
        response["Vary"] = "Accept"
        return response


def _read_lines(log: Log, after: int, limit: int, stream: str | None, seconds: float) -> stored_log.LogPage:
    """Return a page of the log. Wait for its first line or the end of the log."""

    def look() -> stored_log.LogPage:
        nonlocal after
        now = stored_log.find_log(uuid=log.job) or replace(log, ended=True)  # if the job was deleted
        page = stored_log.read_page(now, after=after, limit=limit, stream=stream)
        after = page.read_to
        return page

    return look_until(look, lambda page: bool(page.lines) or page.complete, seconds)


def _without_connection(parts: Iterator[str]) -> Iterator[bytes]:
    """Yield small pieces without holding a database connection, since a client may read slowly."""
    for part in parts:
        release_connection()
        for start in range(0, len(part), _PIECE_LENGTH):
            yield part[start : start + _PIECE_LENGTH].encode()
