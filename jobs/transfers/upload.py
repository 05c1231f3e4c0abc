"""From a file in a container to a URL."""

from collections.abc import Mapping
from http import HTTPStatus

from jobs.errors import OutputNotFound, PathNotFound, ReadFailed, UploadFailed
from jobs.interrupt import Interrupt
from jobs.transfers import tar_files
from jobs.transfers.http_attempt import TransferLimits, TryAgain, exchange, persistently, unsuccessful
from jobs.transfers.sentences import quoted
from jobs.transfers.workspace import Place, find_file


def send_upload(
    place: Place,
    path: str,
    url: str,
    method: str,
    headers: Mapping[str, str],
    *,
    limits: TransferLimits,
    interrupt: Interrupt,
) -> int:
    """Send the regular file at `path` to `url`; how many bytes. A redirect is a failure.

    Each try starts at the first byte. Raises `OutputNotFound`, `ReadFailed`, `UploadFailed`,
    `EngineUnavailable`, `Interrupted`.
    """
    absolute, found = find_file(place, path)
    if found.size > limits.size:
        raise ReadFailed(f"{quoted(path)} has {found.size} bytes, more than the {limits.size} that are allowed")

    def attempt() -> int:
        try:
            with place.engine.get(place.container, absolute) as chunks, tar_files.unpack(chunks) as file:
                return _send(file, url, method, headers, limits, interrupt)
        except PathNotFound as error:
            raise OutputNotFound(f"{quoted(path)} does not exist") from error

    return persistently(attempt, limits, interrupt)


def _send(
    file: tar_files.Unpacked, url: str, method: str, headers: Mapping[str, str], limits: TransferLimits, interrupt: Interrupt
) -> int:
    # The peer may answer before it has everything, and close: what it says then counts, unless it says that all is well.
    with exchange(method, url, headers, file, limits, interrupt) as answer:
        if not HTTPStatus.OK <= answer.status_code < HTTPStatus.MULTIPLE_CHOICES:
            raise unsuccessful(method, url, answer)
        if file.consumed < file.size:
            raise TryAgain(UploadFailed(f"{method} was answered {answer.status_code} before the whole file was sent"))
    return file.size
