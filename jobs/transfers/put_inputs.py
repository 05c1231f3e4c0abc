"""Files that are put into a container before it starts."""

from collections.abc import Mapping

from jobs.interrupt import Interrupt
from jobs.transfers.download import fetched
from jobs.transfers.http_attempt import TransferLimits
from jobs.transfers.progress import Progress, counted, untold
from jobs.transfers.workspace import Place, find_target, put

DEFAULT_MODE = 0o644


def put_file(place: Place, path: str, content: bytes, mode: int = DEFAULT_MODE) -> None:
    """Put a file at `path` in the workspace, the image's user's own; directories that are missing are made (0755).

    What the image has keeps its owner and mode. Raises `WriteFailed`, `EngineUnavailable`.
    """
    put(place, find_target(place, path), mode, len(content), [content])


def put_download(
    place: Place,
    path: str,
    url: str,
    headers: Mapping[str, str],
    sha256: str | None = None,
    mode: int = DEFAULT_MODE,
    *,
    limits: TransferLimits,
    interrupt: Interrupt,
    progress: Progress = untold,
) -> int:
    """Put what `url` gives at `path`, as `put_file` does; how many bytes. It is complete and checked, or not there.

    `headers` and `sha256` are as in `download.fetched`. Raises `WriteFailed`, `DownloadFailed`, `EngineUnavailable`,
    `Interrupted`, `DiskFull`.
    """
    target = find_target(place, path)
    with fetched(url, headers, sha256, limits, interrupt, progress) as spool:
        put(place, target, mode, spool.size, counted(spool.chunks(), spool.size, progress))
        return spool.size
