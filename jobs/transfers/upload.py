"""Uploads a file from a container to a URL."""

from collections.abc import Mapping
from http import HTTPStatus

from jobs.errors import PathNotFound, ReadFailed, UploadFailed
from jobs.interrupt import Interrupt
from jobs.transfers import tar_files
from jobs.transfers.formatting import over_limit, quote_path
from jobs.transfers.http_attempts import (
    Attempts,
    RetryableError,
    TransferLimits,
    describe_answer,
    error_for_status,
    send_request,
)
from jobs.transfers.workspace import Workspace, find_file, not_found
from orchestrator_site.base import measurements


def upload_file(
    workspace: Workspace,
    path: str,
    url: str,
    method: str,
    headers: Mapping[str, str],
    *,
    limits: TransferLimits,
    interrupt: Interrupt,
) -> int:
    """Send the regular file at `path` to `url`; return its size in bytes. A redirect is a failure.

    Each attempt sends the whole file. Raise `OutputNotFound`, `ReadFailed`, `UploadFailed`, `EngineUnavailable`,
    `EngineRefused`, `Interrupted`.
    """
    absolute, found = find_file(workspace, path)
    if found.size > limits.size:
        raise ReadFailed(over_limit(quote_path(path), limits.size))

    attempts = Attempts(limits)
    while True:
        try:
            with workspace.engine.get(workspace.container, absolute) as chunks:
                file = tar_files.unpack(chunks)
                if file.size > limits.size:
                    raise ReadFailed(over_limit(quote_path(path), limits.size))
                return _send(file, url, method, headers, limits, interrupt)
        except PathNotFound as error:
            raise not_found(path) from error
        except RetryableError as error:
            interrupt.sleep(attempts.pause_after(error))


def _send(
    file: tar_files.UnpackedFile,
    url: str,
    method: str,
    headers: Mapping[str, str],
    limits: TransferLimits,
    interrupt: Interrupt,
) -> int:
    # A server may answer before it has read the whole file, and close the connection: an error counts, a success does not.
    try:
        with send_request(method, url, headers, file, limits, interrupt) as answer:
            if not HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
                raise error_for_status(method, url, answer)
            if file.consumed < file.size:
                raise RetryableError(UploadFailed(f"{describe_answer(method, url, answer)} before the whole file was sent"))
    finally:
        measurements.transferred(measurements.Direction.OUT, file.consumed)
    return file.size
