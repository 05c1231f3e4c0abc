"""Reads a small file from a container, to send it in an event."""

import json
from typing import Final

from jobs.errors import PathNotFound, ReadFailed
from jobs.transfers import tar_files
from jobs.transfers.formatting import quote_path
from jobs.transfers.workspace import Workspace, find_file, not_found
from orchestrator_site.base.values.strict_json import NotStrict, Policy, TooLong, compact

MAX_CONTENT_BYTES: Final = 48 * 1024  # as encoded in an event
_MAX_FILE_BYTES: Final = 1024**2  # larger, since white space and escapes of JSON shrink
_POLICY: Final = Policy(max_depth=100, allow_nul=True, any_magnitude=True)


def read_event_content(workspace: Workspace, path: str) -> tuple[int, str]:
    """Return the size in bytes of the regular file at `path`, and its content as JSON (see `encode_content`).

    Raise `OutputNotFound`, `ReadFailed` (it is not a regular file, not UTF-8 or too large), `EngineUnavailable` and
    `EngineRefused`.
    """
    absolute, found = find_file(workspace, path)
    if found.size > _MAX_FILE_BYTES:
        raise _too_large(path)
    try:
        with workspace.engine.get(workspace.container, absolute) as chunks:
            file = tar_files.unpack(chunks)
            if file.size > _MAX_FILE_BYTES:
                raise _too_large(path)
            data = b"".join(file)
    except PathNotFound as error:
        raise not_found(path) from error
    try:
        return len(data), encode_content(data.decode())
    except UnicodeDecodeError as error:
        raise ReadFailed(f"{quote_path(path)} is not valid UTF-8") from error
    except TooLong as error:
        raise _too_large(path) from error


def encode_content(text: str) -> str:
    """Return `text` as compact JSON if it is strict JSON, else as a JSON string. Raise `TooLong`."""
    try:
        return compact(text, _POLICY, MAX_CONTENT_BYTES)
    except NotStrict:
        string = json.dumps(text, ensure_ascii=False)
        if len(string.encode()) > MAX_CONTENT_BYTES:
            raise TooLong from None
        return string


def _too_large(path: str) -> ReadFailed:
    return ReadFailed(f"{quote_path(path)} exceeds {MAX_CONTENT_BYTES // 1024} KiB when encoded in an event")
