"""Typed readers of environment variables.

An invalid value raises `ConfigurationError`; it is never replaced by the default.
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
    """A variable is missing or invalid; the message begins with its name."""


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as `90s`, `15m` or `7d`. Raise `ValueError`."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError("must be a duration such as 90s, 15m or 7d")
    return float(match[1]) * _SECONDS[match[2]]


def parse_size(text: str) -> int:
    """Return the bytes of a size such as `512KiB` or `10MiB`. Raise `ValueError`."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError("must be a size such as 512KiB, 10MiB or 1GiB")
    return int(match[1]) * _BYTES[match[2]]


class Environment:
    """A reader of variables in a mapping; an empty value counts as not set."""

    def __init__(self, variables: Mapping[str, str] = os.environ) -> None:
        self._variables = variables

    def _read(self, name: str, parse: Callable[[str], T], default: T) -> T:
        raw = self._variables.get(name, "").strip()
        if not raw:
            return default
        try:
            return parse(raw)
        except ValueError as error:
            raise ConfigurationError(f"{name} {error}") from error

    def text(self, name: str, default: str = "") -> str:
        return self._read(name, str, default)

    def required(self, name: str, why: str) -> str:
        """Return the value. Raise `ConfigurationError` with the reason `why` if it is not set."""
        value = self.text(name)
        if not value:
            raise ConfigurationError(f"{name} is not set: {why}")
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        def parse(raw: str) -> int:
            if not re.fullmatch(r"\d{1,15}", raw, re.ASCII) or not low <= int(raw) <= high:
                raise ValueError(f"must be an integer between {low} and {high}")
            return int(raw)

        return self._read(name, parse, default)

    def integer_or_auto(self, name: str, low: int, high: int) -> int | None:
        """Return None for `auto`, the default."""

        def parse(raw: str) -> int | None:
            if raw == "auto":
                return None
            if not re.fullmatch(r"\d{1,15}", raw, re.ASCII) or not low <= int(raw) <= high:
                raise ValueError(f"must be auto or an integer between {low} and {high}")
            return int(raw)

        return self._read(name, parse, None)

    def number(self, name: str, default: float | None, low: float, high: float) -> float | None:
        def parse(raw: str) -> float | None:
            if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", raw, re.ASCII) or not low <= float(raw) <= high:
                raise ValueError(f"must be a number between {low:g} and {high:g}")
            return float(raw)

        return self._read(name, parse, default)

    def duration(self, name: str, default: str) -> float:
        """Return seconds."""
        return self._read(name, parse_duration, parse_duration(default))

    def size(self, name: str, default: str | None) -> int | None:
        """Return bytes."""
        return self._read(name, parse_size, None if default is None else parse_size(default))

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        def parse(raw: str) -> str:
            if raw not in choices:
                raise ValueError(f"must be {' or '.join(choices)}")
            return raw

        return self._read(name, parse, default)

    def words(self, name: str) -> list[str] | None:
        """Return the comma-separated words, None if the variable is not set."""
        return self._read(name, lambda raw: [word.strip() for word in raw.split(",") if word.strip()], None)
