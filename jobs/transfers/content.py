"""The content of a small file, as it goes into an event."""

import json
import math
from typing import Any, Final, NoReturn

from jobs.errors import PathNotFound, TransferFailed
from jobs.transfers import tarstream
from jobs.transfers.place import Place, find_file
from jobs.transfers.wording import quoted

MAX_DEPTH: Final = 100
MAX_DIGITS: Final = 4300  # of an integer
ENCODED_LIMIT: Final = 48 * 1024  # bytes
_READ_LIMIT: Final = 1024**2  # bytes: JSON may shrink as it is encoded, by its white space and its escapes


def read_event(place: Place, path: str) -> tuple[int, object]:
    """The size in bytes of the regular file at `path`, and its content: a JSON value, or a string where it is not strict JSON.

    Raises `TransferFailed` where it is no regular file, no UTF-8 or too long as encoded, and `EngineUnavailable`.
    """
    absolute, found = find_file(place, path)
    if found.size > _READ_LIMIT:
        raise _too_long(path)
    try:
        with place.engine.get(place.container, absolute) as chunks, tarstream.unpack(chunks) as file:
            if file.size > _READ_LIMIT:
                raise _too_long(path)
            data = file.read(file.size)
    except PathNotFound as error:
        raise TransferFailed(f"{quoted(path)} does not exist") from error
    try:
        value = parse(data.decode())
    except UnicodeDecodeError as error:
        raise TransferFailed(f"{quoted(path)} is not valid UTF-8") from error
    if len(_encode(value)) > ENCODED_LIMIT:
        raise _too_long(path)
    return len(data), value


def parse(text: str) -> object:
    """`text` as JSON where it is strict JSON that every reader can take, else `text` itself.

    Not taken are NaN and the infinities, numbers that are too large for a double, integers of more than `MAX_DIGITS`
    digits, more than `MAX_DEPTH` levels and lone surrogates.
    """
    try:
        value = json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_refuse)
        if _deeper_than(value, MAX_DEPTH):
            return text
        _encode(value)
    except (ValueError, RecursionError):  # UnicodeEncodeError, of a lone surrogate, is a ValueError too
        return text
    return value


def _too_long(path: str) -> TransferFailed:
    return TransferFailed(f"{quoted(path)} has more than {ENCODED_LIMIT // 1024} KiB as encoded in an event")


def _encode(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise ValueError("too many digits")
    return int(digits)


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("too large")
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _deeper_than(value: object, levels: int) -> bool:
    """Level by level, so that no depth is too much for it."""
    containers: list[Any] = [value]
    for _ in range(levels + 1):
        containers = [item for item in containers if isinstance(item, dict | list)]
        if not containers:
            return False
        containers = [item for outer in containers for item in (outer.values() if isinstance(outer, dict) else outer)]
    return True
