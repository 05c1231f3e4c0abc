"""The values of options, for argparse: each function returns a value or raises `ArgumentTypeError` with what is expected."""

import math
import re
import shlex
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator_site.base.values.quantities import parse_duration, parse_size

_MIB: Final = 1024 * 1024
_URL: Final = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FileOption:
    """The value of `--input` or `--output`: a path in the job's workspace, and a URL or a file on this machine."""

    path: str
    other: str

    @property
    def is_url(self) -> bool:
        return bool(_URL.match(self.other))

    def __str__(self) -> str:
        return f"{self.path}={'<URL>' if self.is_url else self.other}"  # a URL may hold a signature


def file_option(text: str) -> FileOption:
    """Read `PATH=FILE_OR_URL`."""
    path, equals, other = text.partition("=")
    if not (equals and path and other):
        raise ArgumentTypeError("must be PATH=FILE or PATH=URL, with the path in the job's workspace")
    return FileOption(path, other)


def pair(text: str) -> tuple[str, str]:
    """Read `NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not (equals and name):
        raise ArgumentTypeError("must be NAME=VALUE")
    return name, value


def variable(text: str) -> tuple[str, str | None]:
    """Read `NAME=VALUE`, or `NAME` alone, whose value comes from the environment."""
    name, equals, value = text.partition("=")
    if not name:
        raise ArgumentTypeError("must be NAME=VALUE or NAME")
    return name, value if equals else None


def cores(text: str) -> float:
    """Read a number of cores."""
    try:
        number = float(text) if re.fullmatch(r"[0-9]*\.?[0-9]+", text, re.ASCII) else math.nan
    except ValueError:  # pragma: no cover
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ArgumentTypeError("must be a number of cores above 0, such as 0.5 or 2")
    return number


def mebibytes(text: str) -> int:
    """Read a size in whole MiB: `512`, `512MiB` or `1GiB`."""
    if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        number, rest = int(text), 0
    else:
        try:
            number, rest = divmod(parse_size(text), _MIB)
        except ValueError as error:
            raise ArgumentTypeError("must be a size such as 512MiB or 1GiB, or a number of MiB") from error
    if rest or not number:
        raise ArgumentTypeError("must be at least 1MiB and in whole MiB")
    return number


def seconds(text: str) -> int:
    """Read a duration in whole seconds: `90`, `90s` or `15m`."""
    if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        number = float(text)
    else:
        try:
            number = parse_duration(text)
        except ValueError as error:
            raise ArgumentTypeError("must be a duration such as 90s or 15m, or a number of seconds") from error
    if number < 1 or not number.is_integer():
        raise ArgumentTypeError("must be at least 1s and in whole seconds")
    return int(number)


def positive(text: str) -> int:
    """Read a number of lines or jobs."""
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not int(text):
        raise ArgumentTypeError("must be a whole number above 0")
    return int(text)


def command_of(words: Sequence[str]) -> str | list[str] | None:
    """Return the `command` of a job.

    Several words are the exact arguments. One word runs in a shell, as does `command` in the API if it is a string, unless the
    shell would only start a program of that name: then the image needs no shell.
    """
    if not words:
        return None
    if len(words) == 1 and shlex.quote(words[0]) != words[0]:
        return words[0]
    return list(words)


def environment_of(variables: Sequence[tuple[str, str | None]], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the job's environment. Raise `ValueError` if a name has no value, or comes twice."""
    values: dict[str, str] = {}
    for name, value in variables:
        if name in values:
            raise ValueError(f"{name} is given twice")
        if value is None and name not in environment:
            raise ValueError(f"{name} is not set in the environment of this command: give it as {name}=VALUE")
        values[name] = environment[name] if value is None else value
    return values


def unique(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the pairs as a dictionary. Raise `ValueError` if a name comes twice."""
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"{name} is given twice")
        values[name] = value
    return values
