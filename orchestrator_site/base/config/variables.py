"""Typed readers of environment variables (docs/configuration.md lists every one).

A value that cannot be read raises `ConfigurationError` with the variable's name: no silent default.
Durations and sizes are written `90s`, `15m`, `7d`, `512KiB`, `10MiB`.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)(B|KiB|MiB|GiB|TiB)")
_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}


class ConfigurationError(ImproperlyConfigured):
    """A variable is missing or cannot be read; the message begins with its name."""


def parse_duration(text: str) -> float:
    """Seconds. Raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError("write a duration like 90s, 15m or 7d")
    return float(match[1]) * _SECONDS[match[2]]


def parse_size(text: str) -> int:
    """Bytes. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError("write a size like 512KiB, 10MiB or 1GiB")
    return int(match[1]) * _BYTES[match[2]]


class Environment:
    """Reads variables from a mapping; an empty value counts as none."""

    def __init__(self, variables: Mapping[str, str] = os.environ) -> None:
        self._variables = variables

    def _read(self, name: str, parse: Callable[[str], T], default: T) -> T:
        raw = self._variables.get(name, "").strip()
        if not raw:
            return default
        try:
            return parse(raw)
        except ValueError as error:
            raise ConfigurationError(f"{name} cannot be read: {error}") from error

    def text(self, name: str, default: str = "") -> str:
        return self._read(name, str, default)

    def required(self, name: str, why: str) -> str:
        """The value; raises `ConfigurationError` with `why` where there is none."""
        value = self.text(name)
        if not value:
            raise ConfigurationError(f"{name} is not set: {why}")
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        def parse(raw: str) -> int:
            if not re.fullmatch(r"\d{1,15}", raw, re.ASCII) or not low <= int(raw) <= high:
                raise ValueError(f"write a whole number from {low} to {high}")
            return int(raw)

        return self._read(name, parse, default)

    def number(self, name: str, default: float | None, low: float, high: float) -> float | None:
        def parse(raw: str) -> float | None:
            if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", raw, re.ASCII) or not low <= float(raw) <= high:
                raise ValueError(f"write a number from {low:g} to {high:g}")
            return float(raw)

        return self._read(name, parse, default)

    def duration(self, name: str, default: str) -> float:
        """Seconds."""
        return self._read(name, parse_duration, parse_duration(default))

    def size(self, name: str, default: str | None) -> int | None:
        """Bytes."""
        return self._read(name, parse_size, None if default is None else parse_size(default))

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        def parse(raw: str) -> str:
            if raw not in choices:
                raise ValueError(f"write one of {', '.join(choices)}")
            return raw

        return self._read(name, parse, default)

    def words(self, name: str) -> list[str] | None:
        """Comma separated; None where the variable is not set."""
        return self._read(name, lambda raw: [word.strip() for word in raw.split(",") if word.strip()], None)
