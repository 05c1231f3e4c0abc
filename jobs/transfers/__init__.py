"""What goes into a job's container before it starts, and what comes out after it has ended.

Values in, values out: this knows no row and no event. Memory does not grow with a file. Every failure that the client
has to know of is a `TransferFailed` whose text is one short sentence without secrets; `EngineUnavailable`,
`ContainerNotFound` and `Interrupted` pass through.
"""

from jobs.transfers.event_content import read_event
from jobs.transfers.http_attempt import TransferLimits
from jobs.transfers.progress import Progress, Stage, described
from jobs.transfers.put_inputs import put_download, put_file
from jobs.transfers.upload import send_upload
from jobs.transfers.workspace import Place, prepare_workspace

__all__ = [
    "Place",
    "Progress",
    "Stage",
    "TransferLimits",
    "described",
    "prepare_workspace",
    "put_download",
    "put_file",
    "read_event",
    "send_upload",
]
