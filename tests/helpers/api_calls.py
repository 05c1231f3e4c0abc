"""Helpers that call the API in this process and check its answers."""

import json
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.test import Client, override_settings

from jobs.log_lines import Ending
from jobs.models import Job, LogChunk

Answer = Any  # what Django's test client gives back


def post_job(client: Client, **members: Any) -> Answer:
    """POST /v1/jobs, with the image `alpine:latest` unless another is given."""
    return post_body(client, json.dumps({"image": "alpine:latest", **members}))


def post_body(client: Client, body: str | bytes, content_type: str = "application/json", **extra: Any) -> Answer:
    return client.post("/v1/jobs", data=body, content_type=content_type, **extra)


def expect_error(answer: Answer, status: int, field: str | None = None) -> str:
    """Assert that the answer is that error in JSON, and return its sentence."""
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/json"
    body = answer.json()
    assert body.keys() == ({"error", "field"} if field else {"error"}), body
    assert body.get("field") == field
    sentence = body["error"]
    assert isinstance(sentence, str)
    assert sentence
    assert "\n" not in sentence
    return sentence


def configured(**values: Any) -> override_settings:
    """Override variables of the configuration."""
    return override_settings(CONFIGURATION=replace(settings.CONFIGURATION, **values))


def store_lines(job: Job, *lines: str, stream: str = "stdout", last: Ending = Ending.LINE_FEED) -> None:
    """Append lines to the stored log of a job, as a worker does. `last`: how the last one ends."""
    job.refresh_from_db(fields=["log_next"])
    rows = [[stream, f"2026-01-01T00:00:00.{number:09d}Z", line] for number, line in enumerate(lines)]
    unended = None if last == Ending.LINE_FEED else [[len(rows) - 1, last]]
    LogChunk.objects.create(job=job, first=job.log_next, count=len(rows), lines=rows, unended=unended)
    Job.objects.filter(pk=job.pk).update(log_next=job.log_next + len(rows))
