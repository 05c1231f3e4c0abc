"""Clients that follow the log of the job `a` by server-sent events."""

import json
from http.client import HTTPConnection
from typing import Any

from django.utils import timezone

from jobs.models import Job
from tests.helpers.api_calls import store_lines
from tests.helpers.factories import make_job
from tests.helpers.waiting import wait_for
from tests.site.web.web_servers import Web

EVENTS = "text/event-stream"


class Stream:
    """A client that follows the log of the job `a`."""

    def __init__(self, web: Web, query: str = "", last_event_id: str | None = None, method: str = "GET", key: str = "") -> None:
        self.connection = HTTPConnection(*web.address, timeout=30)
        headers = {"Accept": EVENTS, "Host": "localhost"} | (
            {"Last-Event-ID": last_event_id} if last_event_id is not None else {}
        )
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self.connection.request(method, f"/v1/jobs/a/logs?{query}", headers=headers)
        self.response = self.connection.getresponse()

    def close(self) -> None:
        self.connection.close()
        self.response.close()

    def block(self) -> list[str]:
        """Return the lines up to the next empty line; none at the end of the answer."""
        lines = []
        while (line := self.response.readline().decode()) not in ("\n", ""):
            lines.append(line.removesuffix("\n"))
        return lines

    def event(self) -> tuple[str, str, Any]:
        """Return name, id and data of the next event, past comments and `retry`."""
        lines: list[str] = []
        while not any(line.startswith("data: ") for line in lines):
            lines = self.block()
            assert lines, "the answer ended"
        fields = dict(line.split(": ", 1) for line in lines)
        return fields.get("event", "message"), fields["id"], json.loads(fields["data"])

    def texts(self) -> list[str]:
        return [line["text"] for line in self.event()[2]["lines"]]

    def error(self) -> Any:
        return json.loads(self.response.read())


def make_job_with_log() -> Job:
    """Make the job `a`, whose log has a, b of stdout, then x of stderr."""
    job = make_job(id="a")
    store_lines(job, "a", "b")
    store_lines(job, "x", stream="stderr")
    return job


def end_log(job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(exited_at=timezone.now())


def paused(web: Web) -> int:
    return len(web.server._connections.paused())


def wait_until_paused(web: Web, count: int = 1) -> None:
    wait_for(lambda: paused(web) == count, what="the streams to wait")
