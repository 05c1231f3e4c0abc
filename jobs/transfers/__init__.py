"""What goes into a job's container before it starts, and what comes out after it has ended.

Values in, values out: this knows no row and no event. Memory does not grow with a file. Every failure that the client
has to know of is a `TransferFailed` whose text is one short sentence without secrets; `EngineUnavailable`,
`ContainerNotFound` and `Interrupted` pass through.
"""

from jobs.transfers.content import read_event
from jobs.transfers.exchange import TransferLimits
from jobs.transfers.inputs import put_download, put_file
from jobs.transfers.place import Place, prepare_workspace
from jobs.transfers.progress import Progress, Stage, described
from jobs.transfers.upload import send_upload

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
