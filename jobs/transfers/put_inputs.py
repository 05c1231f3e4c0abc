"""Puts files into a container before it starts."""

from collections.abc import Mapping

from jobs.interrupt import Interrupt
from jobs.transfers.download import download_to_spool
from jobs.transfers.http_attempts import TransferLimits
from jobs.transfers.progress import ProgressCallback, no_progress, report_copying
from jobs.transfers.workspace import Workspace, find_target, write_file

DEFAULT_MODE = 0o644


def put_file(workspace: Workspace, path: str, content: bytes, mode: int = DEFAULT_MODE) -> None:
    """Write a file at `path` in the workspace, and its missing directories with mode 0755; the image's user owns them.

    Files and directories of the image keep their owner and mode. Raise `WriteFailed`, `EngineUnavailable`.
    """
    write_file(workspace, find_target(workspace, path), mode, len(content), [content])


def put_download(
    workspace: Workspace,
    path: str,
    url: str,
    headers: Mapping[str, str],
    sha256: str | None = None,
    mode: int = DEFAULT_MODE,
    *,
    limits: TransferLimits,
    interrupt: Interrupt,
    progress: ProgressCallback = no_progress,
) -> int:
    """Download `url` to `path`, with owner and directories as in `put_file`; return its size in bytes.

    The file is complete and checked before any of it is written. `headers` and `sha256` are as in `download_to_spool`. Raises
    `WriteFailed`, `DownloadFailed`, `EngineUnavailable`, `Interrupted`, `DiskFull`.
    """
    target = find_target(workspace, path)
    with download_to_spool(url, headers, sha256, limits, interrupt, progress) as spool:
        write_file(workspace, target, mode, spool.size, report_copying(spool.chunks(), spool.size, progress))
        return spool.size
