"""What a failure's sentence may say of a path or of somebody else's words: at most 1 KiB in all, on one line."""

import json
from typing import Final

_BYTES: Final = 280  # of UTF-8; a sentence quotes two such parts at most


def clipped(text: str) -> str:
    """The start of a text."""
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= _BYTES else encoded[:_BYTES].decode(errors="ignore") + "…"


def quoted(path: str) -> str:
    """A path in quotes, its control characters escaped."""
    return f'"{clipped(json.dumps(path, ensure_ascii=False)[1:-1])}"'
