"""Runs a job again: a new job with the same description, with its secrets, which are not shown."""

from base64 import b64decode
from datetime import timedelta
from typing import Any, Final, cast
from uuid import UUID

from django.db.models.functions import Now

from jobs import events, services
from jobs.errors import JobError
from jobs.models import Input, Job, Output
from jobs.services import JobNotFound
from jobs.spec import InputSpec, JobSpec, OutputSpec, UploadMethod
from jobs.states import InputType, OutputType
from orchestrator_site.base.db.encryption import Unreadable


class DescriptionUnreadable(JobError):
    """The job's secrets cannot be decrypted."""


# Members of a `JobSpec` that a `Job` has under the same names.
_SAME: Final = (
    "image",
    "command",
    "cpu_millis",
    "memory_mib",
    "timeout_seconds",
    "environment",
    "meta",
    "workspace",
    "pull_policy",
    "network",
)


def run_again(uuid: UUID, new_id: str, retention: timedelta) -> Job:
    """Store a job like this one under a new id, and return it.

    Raise `IdTaken`, `TooManyUndecided`, `DescriptionUnreadable`, and `JobNotFound` if the job does not exist or has been complete
    for `retention`: parts of it may be deleted.
    """
    try:
        job = Job.objects.prefetch_related("inputs", "outputs").filter(uuid=uuid).first()
        if job is None:
            raise JobNotFound("there is no such job")
        spec = spec_of(job, new_id)
    except Unreadable as error:
        raise DescriptionUnreadable("its secrets cannot be decrypted with ENCRYPTION_KEYS") from error
    # Asked last: what had not expired after everything was read is complete.
    if not Job.objects.filter(uuid=uuid).exclude(completed_at__lt=Now() - retention).exists():
        raise JobNotFound("the job is being deleted, because JOB_RETENTION is over")
    return services.create(spec, job.namespace, events.client_of(uuid))


def spec_of(job: Job, new_id: str) -> JobSpec:
    """Return the description of a stored job, under another id. It holds secrets: show none of it."""
    same: dict[str, Any] = {name: getattr(job, name) for name in _SAME}
    return JobSpec(
        **same,
        id=new_id,
        inputs=tuple(_input(item) for item in job.inputs.all()),
        outputs=tuple(_output(item) for item in job.outputs.all()),
        callback=events.callback_of(job.uuid),
    )


def _input(item: Input) -> InputSpec:
    return InputSpec(
        id=item.name,
        type=InputType(item.type),
        path=item.path,
        mode=item.mode,
        content=b64decode(item.content),
        url=item.url,
        headers=item.headers,
        sha256=item.sha256,
    )


def _output(item: Output) -> OutputSpec:
    return OutputSpec(
        id=item.name,
        type=OutputType(item.type),
        path=item.path,
        url=item.url,
        method=cast(UploadMethod, item.method),
        headers=item.headers,
    )
