"""Puts files into a container before it starts."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Final

from jobs.interrupt import Interrupt
from jobs.transfers.download import Download, Piece
from jobs.transfers.http_attempts import TransferLimits
from jobs.transfers.progress import ProgressCallback, no_progress, report_copying
from jobs.transfers.spool import Spool
from jobs.transfers.workspace import Target, Workspace, find_target, write_file

DEFAULT_MODE = 0o644
ALWAYS_SPOOLED: Final = 4 * 1024**2  # bytes: enough to see how fast a download is


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

    `headers` and `sha256` are as in `Download`. Raise `WriteFailed`, `DownloadFailed`, `EngineUnavailable`, `Interrupted` and
    `DiskFull`; the container must not be started then, since it may have a part of the file.
    """
    target = find_target(workspace, path)
    download = Download(url, headers, sha256, limits, interrupt, progress)
    with closing(download.pieces()) as pieces, Spool(limits.spool_directory) as spool:
        if spool.fill(pieces, ALWAYS_SPOOLED):
            if download.seconds_left() <= limits.intervals.direct:
                download.begin_anew_after(limits.intervals.direct_max)
                if (size := _write_directly(workspace, target, mode, download, spool, pieces)) is not None:
                    return size
            spool.fill(pieces)
        write_file(workspace, target, mode, spool.size, report_copying(spool.chunks(), spool.size, progress))
        return spool.size


class _BegunAnewError(Exception):
    """The rest of the file cannot follow what is in the container already."""


def _write_directly(
    workspace: Workspace, target: Target, mode: int, download: Download, spool: Spool, pieces: Iterable[Piece]
) -> int | None:
    """Write what is in the spool, and the rest of the file as it arrives; return its size.

    Return None if the download begins anew: clear the spool for the next pieces. The engine is done with the incomplete
    archive then, so another one cannot be overtaken by it.
    """
    size = download.size
    assert size is not None, "the time left is known"

    def chunks() -> Iterator[bytes]:
        yield from spool.chunks()
        written = spool.size
        for piece in pieces:
            if piece.offset != written:
                raise _BegunAnewError
            yield piece.data
            written = piece.end

    try:
        write_file(workspace, target, mode, size, chunks())
    except _BegunAnewError:
        spool.clear()
        return None
    return size
