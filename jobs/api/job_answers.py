"""What the API says of a job. No secret: no key, environment value, URL or header is ever read here."""

from collections.abc import Iterable
from typing import Any

from jobs.api.waiting_reason import waiting_for
from jobs.models import Input, Job, Output
from orchestrator_site.base.http.api_views import rfc3339


def job_summary(job: Job) -> dict[str, Any]:
    """A job as a list shows it. What is not known yet is left out."""
    moments = {
        "startedAt": job.started_at,
        "finishedAt": job.finished_at,
        "completedAt": job.completed_at,
    }
    known: dict[str, Any] = {
        "exitCode": job.exit_code,
        "reason": job.reason or None,
        "error": job.error or None,
        **{name: rfc3339(moment) for name, moment in moments.items() if moment is not None},
        "node": job.node.name if job.node is not None else None,
    }
    return {
        "id": job.id,
        "status": job.status,
        "image": job.image,
        "meta": job.meta,
        "createdAt": rfc3339(job.created_at),
        "cpu": job.cpu_millis / 1000,
        "memory": job.memory_mib,
        "timeoutSeconds": job.timeout_seconds,
        **{name: value for name, value in known.items() if value is not None},
    }


def job_detail(job: Job) -> dict[str, Any]:
    """A job as `GET /v1/jobs/<id>` shows it."""
    waiting = waiting_for(job)
    return {
        **job_summary(job),
        **({"waiting": waiting} if waiting is not None else {}),
        "inputs": _transfers(job.inputs.defer("content", "url", "headers")),
        "outputs": _transfers(job.outputs.defer("url", "headers")),
    }


def _transfers(rows: Iterable[Input | Output]) -> list[dict[str, Any]]:
    return [
        {
            "id": row.name,
            "type": row.type,
            "status": row.status,
            **({"bytes": row.bytes} if row.bytes is not None else {}),
            **({"error": row.error} if row.error else {}),
        }
        for row in rows
    ]
