"""What a failure's sentence may say of a path or of somebody else's words: at most 1 KiB in all, on one line."""

import json
from typing import Final

_UNIT: Final = 1024
_BYTES: Final = 280  # of UTF-8; a sentence quotes two such parts at most


def clipped(text: str) -> str:
    """The start of a text."""
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= _BYTES else encoded[:_BYTES].decode(errors="ignore") + "…"


def escaped(path: str) -> str:
    """A path with its control characters escaped."""
    return clipped(json.dumps(path, ensure_ascii=False)[1:-1])


def quoted(path: str) -> str:
    """A path in quotes, its control characters escaped."""
    return f'"{escaped(path)}"'


def size(count: int) -> str:
    """A number of bytes, in the largest unit of which there is one: `512 B`, `1.5 GiB`."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if round(amount, 1) < _UNIT:
            return f"{round(amount, 1):g} {unit}"
        amount /= _UNIT
    return f"{round(amount, 1):.15g} GiB"
