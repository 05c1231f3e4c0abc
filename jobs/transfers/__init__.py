"""The files of a job: inputs go into its container before it starts, outputs come out after it has ended.

This package knows no models and no events, and its memory does not grow with a file. Failures that the client must know of
are `TransferFailed`, with one short sentence without secrets; `EngineUnavailable`, `ContainerNotFound` and `Interrupted`
pass through.
"""

from jobs.transfers.event_content import read_event_content
from jobs.transfers.formatting import format_size
from jobs.transfers.http_attempts import TransferLimits
from jobs.transfers.progress import Stage, describe_progress
from jobs.transfers.put_inputs import put_download, put_file
from jobs.transfers.upload import upload_file
from jobs.transfers.workspace import Workspace, prepare_workspace

__all__ = [
    "Stage",
    "TransferLimits",
    "Workspace",
    "describe_progress",
    "format_size",
    "prepare_workspace",
    "put_download",
    "put_file",
    "read_event_content",
    "upload_file",
]
