"""The API's addresses. A view reads the request, makes one call and answers; nothing here waits for an engine."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from rest_framework.request import Request

from jobs import services
from jobs.api import job_list, job_operations, limits, stored_log
from jobs.api.job_answers import job_detail, job_summary
from jobs.api.new_job import read_job
from jobs.api.stored_log import Log, LogPage, StoredLine
from jobs.errors import IdTaken
from jobs.log_lines import Ending
from jobs.models import Job
from jobs.services import JobNotFound
from jobs.states import UNDECIDED, State, Stream
from orchestrator_site.base.db.transactions import release_connection
from orchestrator_site.base.http.api_errors import ApiError, InvalidRequest
from orchestrator_site.base.http.api_views import ApiView, Parameters, json_response
from orchestrator_site.base.http.json_body import read_json
from orchestrator_site.base.http.long_polls import look_until

_META = "meta."
_PIECE_LENGTH = 32 * 1024  # characters of a log that are sent at a time


def no_such_job() -> ApiError:
    return ApiError(HTTPStatus.NOT_FOUND, "there is no job with this id")


class JobsView(ApiView):
    @job_operations.create_job
    def post(self, request: Request) -> HttpResponse:
        """Accept a job. It is stored durably when this answers, and waits for no engine."""
        Parameters(request._request)
        spec = read_json(request._request, read_job)
        try:
            job = services.create(spec)
        except IdTaken as error:
            raise ApiError(HTTPStatus.CONFLICT, "a job with this id exists", field="id") from error
        body = {"id": job.id, "status": State.ACCEPTED}
        return json_response(body, status=HTTPStatus.ACCEPTED, headers={"Location": f"/v1/jobs/{job.id}"})

    @job_operations.list_jobs
    def get(self, request: Request) -> HttpResponse:
        """Jobs, newest first. A page may be short, or empty, and still have a `nextCursor`."""
        known = ("limit", "cursor", "status", "image", "node", "createdAfter", "createdBefore")
        parameters = Parameters(request._request, known, prefix=_META)
        filters = job_list.Filters(
            status=parameters.choice("status", State.values),
            image=parameters.text("image"),
            node=parameters.text("node"),
            meta=parameters.prefixed(_META),
            created_after=parameters.moment("createdAfter"),
            created_before=parameters.moment("createdBefore"),
        )
        limit = parameters.page_limit()
        page = job_list.page_of_jobs(filters, cursor=_cursor(parameters), limit=limit)
        body = {"jobs": [job_summary(job) for job in page.jobs]}
        return json_response(body | ({"nextCursor": page.next_cursor} if page.next_cursor else {}))


def _cursor(parameters: Parameters) -> UUID | None:
    text = parameters.text("cursor")
    try:
        return None if text is None else job_list.decode_cursor(text)
    except ValueError as error:
        raise InvalidRequest("this is no cursor that a list gave", field="cursor") from error


class JobView(ApiView):
    @job_operations.get_job
    def get(self, request: Request, job_id: str) -> HttpResponse:
        """A job. With `wait`, as soon as it is decided or the time is up."""
        seconds = Parameters(request._request, ("wait",)).seconds("wait", limits.WAIT_SECONDS)
        look_until(lambda: _status(job_id), lambda status: status not in UNDECIDED, seconds)
        job = job_list.find_job(job_id)
        if job is None:
            raise no_such_job()
        return json_response(job_detail(job))

    @job_operations.cancel_job
    def delete(self, request: Request, job_id: str) -> HttpResponse:
        """Cancel a job, or only its outputs where its process has ended. One that is complete stays as it is."""
        Parameters(request._request)
        try:
            services.cancel(job_id)
        except JobNotFound as error:
            raise no_such_job() from error
        answer = HttpResponse(status=HTTPStatus.NO_CONTENT)
        del answer["Content-Type"]
        return answer


def _status(job_id: str) -> str | None:
    return Job.objects.filter(id=job_id).values_list("status", flat=True).first()


class LogsView(ApiView):
    @job_operations.get_logs
    def get(self, request: Request, job_id: str) -> HttpResponseBase:
        """A job's stored log: as text, all of it; as JSON, a page of lines."""
        parameters = Parameters(request._request, ("after", "limit", "stream", "tail", "wait"))
        after = parameters.integer("after", 0, limits.LOG_NUMBER_MAX) or 0
        limit = parameters.integer("limit", 1, limits.LOG_LINES_MAX)
        stream = parameters.choice("stream", Stream.values)
        tail = parameters.integer("tail", 0, limits.LOG_LINES_MAX)
        seconds = parameters.seconds("wait", limits.WAIT_SECONDS)
        log = stored_log.find_log(job_id)
        if log is None:
            raise no_such_job()
        if tail is not None:
            after = max(after, stored_log.before_tail(log, count=tail, stream=stream))
        if _prefers_json(request):
            limit = limit or max(tail or 0, limits.LOG_LINES_DEFAULT)
            response: HttpResponseBase = _page_of_lines(log, after, limit, stream, seconds)
        else:
            response = _text(log, after, limit, stream, seconds)
        response["Vary"] = "Accept"
        return response


def _prefers_json(request: Request) -> bool:
    """Of two that are equally wanted the one named first is taken; text where it is all the same."""
    return request._request.get_preferred_type(["text/plain", "application/json"]) == "application/json"


def _page_of_lines(log: Log, after: int, limit: int, stream: str | None, seconds: float) -> HttpResponse:
    log, page = _read_lines(log, after, limit, stream, seconds)
    lines = [_line(line) for line in page.lines]
    return json_response({"lines": lines, "next": page.read_to, "complete": log.ended and page.at_end})


def _line(line: StoredLine) -> dict[str, Any]:
    said = {"seq": line.number, "stream": line.stream, "time": line.time, "text": line.text}
    return said | {"partial": True} if line.ending == Ending.PARTIAL else said


def _text(log: Log, after: int, limit: int | None, stream: str | None, seconds: float) -> HttpResponseBase:
    if seconds:
        _read_lines(log, after, 1, stream, seconds)
    parts = stored_log.read_text(log, after=after, limit=limit, stream=stream)
    return StreamingHttpResponse(_without_connection(parts), content_type="text/plain; charset=utf-8")


def _read_lines(log: Log, after: int, limit: int, stream: str | None, seconds: float) -> tuple[Log, LogPage]:
    """Where the log stood before the page was read, and the page; waits for its first line or the log's end."""
    read_to = after

    def look() -> tuple[Log, LogPage]:
        nonlocal read_to
        now = stored_log.find_again(log)
        page = stored_log.read_page(now, after=read_to, limit=limit, stream=stream)
        read_to = page.read_to
        return now, page

    return look_until(look, lambda seen: bool(seen[1].lines) or seen[0].ended, seconds)


def _without_connection(parts: Iterator[str]) -> Iterator[bytes]:
    """Hold no database connection, and little memory, while a client reads slowly."""
    for part in parts:
        release_connection()
        for start in range(0, len(part), _PIECE_LENGTH):
            yield part[start : start + _PIECE_LENGTH].encode()
