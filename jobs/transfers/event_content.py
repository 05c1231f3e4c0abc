"""The content of a small file, as it goes into an event."""

import json
from typing import Final

from jobs.errors import OutputNotFound, PathNotFound, ReadFailed
from jobs.transfers import tar_files
from jobs.transfers.sentences import quoted
from jobs.transfers.workspace import Place, find_file
from orchestrator_site.base.values.strict_json import NotStrict, Policy, TooLong, compact

ENCODED_LIMIT: Final = 48 * 1024  # bytes
_READ_LIMIT: Final = 1024**2  # bytes: JSON may shrink as it is encoded, by its white space and its escapes
_POLICY: Final = Policy(max_depth=100, allow_nul=True, any_magnitude=True)


def read_event(place: Place, path: str) -> tuple[int, str]:
    """The size in bytes of the regular file at `path`, and its content as JSON: a string where it is not strict JSON itself.

    Raises `OutputNotFound`, `ReadFailed` if it is not a regular file, not UTF-8 or too long as encoded, and `EngineUnavailable`.
    """
    absolute, found = find_file(place, path)
    if found.size > _READ_LIMIT:
        raise _too_long(path)
    try:
        with place.engine.get(place.container, absolute) as chunks, tar_files.unpack(chunks) as file:
            if file.size > _READ_LIMIT:
                raise _too_long(path)
            data = file.read(file.size)
    except PathNotFound as error:
        raise OutputNotFound(f"{quoted(path)} does not exist") from error
    try:
        return len(data), encoded(data.decode())
    except UnicodeDecodeError as error:
        raise ReadFailed(f"{quoted(path)} is not valid UTF-8") from error
    except TooLong as error:
        raise _too_long(path) from error


def encoded(text: str) -> str:
    """`text` itself where it is strict JSON, made compact, else as a JSON string. Raises `TooLong`."""
    try:
        return compact(text, _POLICY, ENCODED_LIMIT)
    except NotStrict:
        string = json.dumps(text, ensure_ascii=False)
        if len(string.encode()) > ENCODED_LIMIT:
            raise TooLong from None
        return string


def _too_long(path: str) -> ReadFailed:
    return ReadFailed(f"{quoted(path)} has more than {ENCODED_LIMIT // 1024} KiB as encoded in an event")
