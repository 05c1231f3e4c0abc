"""Texts for people: without anything that a terminal would interpret, and times in words."""

from datetime import UTC, datetime
from typing import Any, Final

_MAX_LENGTH: Final = 2000  # characters; the service's own errors have at most 1 KiB
_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR


def shown(text: object) -> str:
    """Return the text on one line, with escapes for control characters, line feeds and marks that reorder text.

    What the service sends may contain anything, and a terminal would obey it.
    """
    string = str(text)
    if len(string) > _MAX_LENGTH:
        string = f"{string[:_MAX_LENGTH]}…"
    if string.isprintable():
        return string
    return "".join(character if character.isprintable() else character.encode("unicode_escape").decode() for character in string)


def in_words(seconds: float) -> str:
    """Return a duration such as `less than 0.1 s`, `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min` or `3 d 4 h`."""
    seconds = max(0.0, seconds)
    if seconds < 0.05:
        return "less than 0.1 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, part_size, part_name in ((_DAY, "d", _HOUR, "h"), (_HOUR, "h", _MINUTE, "min"), (_MINUTE, "min", 1, "s")):
        if whole >= size:
            part = whole % size // part_size
            return f"{whole // size} {name} {part} {part_name}" if part else f"{whole // size} {name}"
    return f"{whole} s"


def ago(seconds: float) -> str:
    """Return how long ago something was: `just now`, `3 s ago` or `2 h 10 min ago`."""
    if seconds < 1:
        return "just now"
    return f"{round(seconds)} s ago" if seconds < 9.95 else f"{in_words(seconds)} ago"


def size_in_words(count: int) -> str:
    """Return a size such as `17 bytes`, `1.5 KiB` or `12.0 MiB`."""
    if count < 1024:
        return f"{count} bytes"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"


def time_of(job: dict[str, Any], member: str) -> datetime | None:
    """Return a time that the service sent, in this machine's time zone; None if it is missing or is not one."""
    try:
        moment = datetime.fromisoformat(job[member])
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def seconds_between(job: dict[str, Any], start: str, end: str) -> float | None:
    """Return the seconds between two of a job's times; None if one of them is not known."""
    first, last = time_of(job, start), time_of(job, end)
    return (last - first).total_seconds() if first and last else None
