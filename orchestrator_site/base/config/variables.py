"""Typed readers of environment variables.

An invalid value raises `ConfigurationError`; it is never replaced by the default.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from django.core.exceptions import ImproperlyConfigured

from orchestrator_site.base.values.quantities import parse_duration, parse_size

T = TypeVar("T")


class ConfigurationError(ImproperlyConfigured):
    """A variable is missing or invalid; the message begins with its name."""


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

    def name(self, name: str) -> str:
        """Return a name of something, empty if the variable is not set."""

        def parse(raw: str) -> str:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", raw):
                raise ValueError("must be a name of letters, digits, '_', '.' and '-'")
            return raw

        return self._read(name, parse, "")

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
