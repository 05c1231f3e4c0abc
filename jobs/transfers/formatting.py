"""Paths, sizes and foreign text for error messages: a message is one line of at most 1 KiB."""

import json
from typing import Final

_UNIT: Final = 1024
_MAX_BYTES: Final = 280  # in UTF-8; a message contains two such parts at most


def truncate(text: str) -> str:
    """Return `text`, or its first 280 bytes and an ellipsis."""
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= _MAX_BYTES else encoded[:_MAX_BYTES].decode(errors="ignore") + "…"


def escape_path(path: str) -> str:
    """Return the truncated path with its control characters escaped."""
    return truncate(json.dumps(path, ensure_ascii=False)[1:-1])


def quote_path(path: str) -> str:
    """Return the truncated path in quotes, its control characters escaped."""
    return f'"{escape_path(path)}"'


def format_size(size: int) -> str:
    """Return a number of bytes in the largest suitable unit: `512 B`, `1.5 GiB`."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB"):
        if round(amount, 1) < _UNIT:
            return f"{round(amount, 1):g} {unit}"
        amount /= _UNIT
    return f"{round(amount, 1):.15g} GiB"


def over_limit(subject: str, limit: int, *, is_rest: bool = False) -> str:
    """Return the message for a file that is larger than transfers may be, or than what is left of the job's disk limit."""
    if is_rest:
        return f"{subject} exceeds the {limit} bytes that the job may still write (DISK_LIMIT)"
    return f"{subject} exceeds the limit of {limit} bytes (TRANSFER_LIMIT)"
