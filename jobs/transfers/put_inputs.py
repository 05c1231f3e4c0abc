"""Puts files into a container before it starts."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Final

from jobs.errors import WriteFailed
from jobs.interrupt import Interrupt
from jobs.transfers.download import Download, Piece
from jobs.transfers.formatting import over_limit, quote_path
from jobs.transfers.http_attempts import TransferLimits
from jobs.transfers.progress import ProgressCallback, no_progress, report_copying
from jobs.transfers.spool import Spool
from jobs.transfers.workspace import Workspace, find_target, write_file
from orchestrator_site.base.intervals import TransferIntervals

DEFAULT_MODE = 0o644
ALWAYS_SPOOLED: Final = 4 * 1024**2  # bytes: enough to see how fast a download is


def put_file(
    workspace: Workspace, path: str, content: bytes, mode: int = DEFAULT_MODE, *, limits: TransferLimits | None = None
) -> None:
    """Write a file at `path` in the workspace, and its missing directories with mode 0755; the image's user owns them.

    Files and directories of the image keep their owner and mode. Raise `WriteFailed`, `EngineUnavailable`.
    """
    if limits and len(content) > limits.size:
        raise WriteFailed(over_limit(quote_path(path), limits.size, is_rest=limits.is_rest))
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
            size = download.size
            if size is not None and download.seconds_left() <= limits.intervals.direct:
                arriving = _in_time(pieces, download, limits.intervals)
                try:
                    write_file(workspace, target, mode, size, _joined(spool, arriving))
                except _BegunAnewError:
                    spool.clear()  # what the container has of the file is replaced below
                else:
                    return size
            spool.fill(pieces)
        write_file(workspace, target, mode, spool.size, report_copying(spool.chunks(), spool.size, progress))
        return spool.size


class _BegunAnewError(Exception):
    """The rest of the file cannot follow what is in the container already."""


def _joined(spool: Spool, arriving: Iterable[Piece]) -> Iterator[bytes]:
    """Yield what is in the spool, and then the rest of the file. Raise `_BegunAnewError`."""
    yield from spool.chunks()
    written = spool.size
    for piece in arriving:
        if piece.offset != written:
            raise _BegunAnewError
        yield piece.data
        written = piece.end


def _in_time(pieces: Iterator[Piece], download: Download, intervals: TransferIntervals) -> Iterator[Piece]:
    """Yield `pieces`, which begin anew if their server sends nothing for a few seconds, or is too slow in all.

    The time that the engine needs to write them does not count.
    """
    left = intervals.direct_max
    while True:
        asked = time.monotonic()
        with download.anew_after(min(intervals.direct_silence, left)):
            piece = next(pieces, None)
        left -= time.monotonic() - asked
        if piece is None:
            return
        yield piece
