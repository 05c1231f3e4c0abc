"""What clients and operators may do with jobs: create and cancel them. Neither waits for an engine."""

from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Model

from jobs import events, lifecycle, namespace_use, node_hints
from jobs.errors import IdTaken, JobError, OwnershipLost, TooManyUndecided
from jobs.models import Input, Job, Output, made_at, new_uuid
from jobs.spec import InputSpec, JobSpec, OutputSpec
from jobs.states import InputType, OutputType
from orchestrator_site.base import measurements
from orchestrator_site.base.access import limits
from orchestrator_site.base.access.models import DEFAULT
from orchestrator_site.base.db.statements import Statement, execute_together, insertion
from orchestrator_site.base.log_context import present_fields

ID_TAKEN: Final = "a job with this id already exists"


class JobNotFound(JobError):
    """No job has this id."""

    fault = "client"


def create(spec: JobSpec, namespace: str = DEFAULT, client: str = "") -> Job:
    """Store a job of a namespace that exists, durably, and hint to a worker. Raise `IdTaken`, `TooManyUndecided`.

    `client` names the key that posts it (`Access.client`): its events count towards the key's limit.
    """
    job = _job(spec, namespace)
    inputs = [_input(job, position, item) for position, item in enumerate(spec.inputs)]
    outputs = [_output(job, position, item) for position, item in enumerate(spec.outputs)]
    statements = [_insertion(rows) for rows in ([job], inputs, outputs) if rows]
    if spec.callback is not None:
        statements += events.subscription(job, spec.callback, client)
    try:
        _store(statements, namespace)
    except IntegrityError as error:
        if Job.objects.filter(namespace=namespace, id=spec.id).exists():
            raise IdTaken(ID_TAKEN) from error
        raise
    node_hints.hint_for_job_on_commit(job)
    transaction.on_commit(partial(measurements.job_accepted, job.image))
    return job


def _store(statements: Sequence[Statement], namespace: str) -> None:
    if limits.kept.of(namespace).max_undecided is None:
        execute_together(statements)
        return
    with transaction.atomic():
        most = limits.lock(namespace).max_undecided
        if most is not None and namespace_use.undecided(namespace, most) >= most:
            raise TooManyUndecided(f"the namespace has reached its limit of undecided jobs, which is {most}")
        execute_together(statements)


def cancel(job_id: str, namespace: str = DEFAULT) -> None:
    """Cancel a job, or the remaining outputs of one that is decided. A complete job does not change. Raise `JobNotFound`."""
    uuid = Job.objects.filter(namespace=namespace, id=job_id).values_list("uuid", flat=True).first()
    if uuid is None:
        raise JobNotFound("there is no job with this id")
    cancel_remaining(uuid)


def cancel_remaining(uuid: UUID) -> bool:
    """Cancel a job, or the remaining outputs of one that is decided. Return False if there was nothing to cancel."""
    for cancel_what_remains in (lifecycle.cancel, lifecycle.cancel_outputs):
        with suppress(OwnershipLost):  # too late for this one
            cancel_what_remains(uuid)
            return True
    return False


def _insertion(rows: Sequence[Model]) -> Statement:
    """Return the statement that inserts these rows of one table. What is None in all of them is left to the database."""
    fields = rows[0]._meta.concrete_fields
    names = tuple(field.name for field in fields if any(getattr(row, field.attname) is not None for row in rows))
    return insertion(type(rows[0]), rows, names)


def _job(spec: JobSpec, namespace: str) -> Job:
    uuid = new_uuid()
    return Job(
        uuid=uuid,
        namespace=namespace,
        id=spec.id or str(new_uuid()),  # not `uuid`: it is in the container's name, which other jobs can learn by DNS
        image=spec.image,
        command=spec.command,
        cpu_millis=spec.cpu_millis,
        memory_mib=spec.memory_mib,
        timeout_seconds=spec.timeout_seconds,
        environment=dict(spec.environment),
        meta=dict(spec.meta),
        workspace=spec.workspace,
        pull_policy=spec.pull_policy,
        network=spec.network,
        wants_logs=spec.callback is not None and (not spec.callback.events or events.LOG in spec.callback.events),
        has_downloads=any(item.type == InputType.DOWNLOAD for item in spec.inputs),
        has_uploads=any(item.type == OutputType.UPLOAD for item in spec.outputs),
        has_inputs=bool(spec.inputs),
        has_outputs=bool(spec.outputs),
        created_at=made_at(uuid),
        request_id=present_fields().get("request_id", ""),
    )


def _input(job: Job, position: int, item: InputSpec) -> Input:
    return Input(
        job=job,
        position=position,
        name=item.id,
        type=item.type,
        path=item.path,
        mode=item.mode,
        content=b64encode(item.content).decode(),
        url=item.url,
        headers=dict(item.headers),
        sha256=item.sha256,
    )


def _output(job: Job, position: int, item: OutputSpec) -> Output:
    return Output(
        job=job,
        position=position,
        name=item.id,
        type=item.type,
        path=item.path,
        url=item.url,
        method=item.method,
        headers=dict(item.headers),
    )
