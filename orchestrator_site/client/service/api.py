"""The calls of the HTTP API, and the values that it answers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from orchestrator_site.client.errors import ClientError
from orchestrator_site.client.service.connection import Connection
from orchestrator_site.client.texts import shown

_JOB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a log, or a piece of one. `has_end` is whether a line feed followed it, except maybe in the last line."""

    number: int
    stream: str
    text: str
    has_end: bool
    as_json: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LogPage:
    lines: list[LogLine]
    next: int
    complete: bool


class Service:
    """The service behind a connection. An answer that does not have the form that the API describes is a `ClientError`."""

    def __init__(self, connection: Connection, namespace: str | None = None) -> None:
        """Call it about the jobs of this namespace; a key of one namespace needs none."""
        self._connection = connection
        self._namespace = {} if namespace is None else {"namespace": namespace}
        self.url: Final = connection.url

    def create(self, job: bytes) -> None:
        """Post a job. Raise `RefusedAfterRetry` if the id is taken, but perhaps by an earlier attempt of this call."""
        self._connection.call_json("POST", "/v1/jobs", query=self._namespace, body=job)

    def get(self, job_id: str, *, wait: float = 0.0) -> dict[str, Any]:
        """Return a job, after at most `wait` seconds for its status to become final."""
        query = self._namespace | _waiting(wait)
        return self._job(self._connection.call_json("GET", _path_of(job_id), query=query, wait=wait))

    def cancel(self, job_id: str) -> None:
        self._connection.call("DELETE", _path_of(job_id), query=self._namespace)

    def list_jobs(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return a page of jobs."""
        page = self._connection.call_json("GET", "/v1/jobs", query={**self._namespace, **query})
        for job in _list_of(page, "jobs"):
            self._job(job)
        return page

    def log_page(self, job_id: str, *, wait: float = 0.0, **query: int | str) -> LogPage:
        """Return a page of the log, after at most `wait` seconds for a line or the end of the log."""
        asked = self._namespace | {name: str(value) for name, value in query.items()} | _waiting(wait)
        page = self._connection.call_json("GET", f"{_path_of(job_id)}/logs", query=asked, wait=wait)
        try:
            lines = [
                LogLine(int(line["seq"]), str(line["stream"]), str(line["text"]), not line.get("partial"), line)
                for line in _list_of(page, "lines")
            ]
            return LogPage(lines, int(page["next"]), bool(page["complete"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self.not_the_service() from error

    def log_text(self, job_id: str, *, after: int, limit: int, stream: str) -> bytes:
        """Return lines of the log exactly as they were printed."""
        query = self._namespace | {"after": str(after), "limit": str(limit), "stream": stream}
        return self._connection.call("GET", f"{_path_of(job_id)}/logs", query=query, accept="text/plain")

    def _job(self, value: Any) -> dict[str, Any]:
        """Return the value if it has the form of a job."""
        if (
            isinstance(value, dict)
            and isinstance(value.get("meta", {}), dict)
            and isinstance(value.get("cpu", 0), int | float)
            and all(isinstance(item, dict) for kind in ("inputs", "outputs") if kind in value for item in _list_of(value, kind))
        ):
            return value
        raise self.not_the_service()

    def not_the_service(self) -> ClientError:
        """Return the error for an answer that the API does not allow."""
        return self._connection.not_the_service()


def _path_of(job_id: str) -> str:
    if not _JOB_ID.fullmatch(job_id):
        raise ClientError(f'"{shown(job_id)}" is not the id of a job')
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _waiting(seconds: float) -> dict[str, str]:
    return {"wait": f"{seconds:g}"} if seconds else {}


def _list_of(page: Mapping[str, Any], member: str) -> list[Any]:
    items = page.get(member)
    return items if isinstance(items, list) else [None]
