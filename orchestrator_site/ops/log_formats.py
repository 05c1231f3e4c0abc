"""The two forms of a log line: JSON for programs, text for people.

Pass details as `extra={"job": ..., "node": ...}`: each attribute of a record that is not a standard one becomes a member. So does
what the message itself names, as in `logger.info("%(method)s %(status)d", {"method": ..., "status": ...})`.

No control character of a message reaches the terminal or file: it could end the line, and forge another one.
"""

import json
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "request"}
_OWN_PACKAGES: Final = frozenset({"callbacks", "jobs", "orchestrator_site"})
# C0 and C1 controls, what some programs take for the end of a line, and what changes the direction of text.
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_PLAIN_VALUE: Final = re.compile(r"[^\s\"'=]+")
_DIM, _RESET = "\x1b[2m", "\x1b[0m"
_COLOURS: Final = {
    logging.DEBUG: _DIM,
    logging.INFO: "\x1b[32m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[1;31m",
}


class JSONFormatter(logging.Formatter):
    """A formatter of records as `{"time", "level", "logger", "message", ...extra, "exception"?}`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if isinstance(record.args, Mapping) and _is_own(record):
            line |= record.args
        line |= _details(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _escaped(json.dumps(line, default=str, ensure_ascii=False))


class TextFormatter(logging.Formatter):
    """A formatter of records as `<time> <level> <message>  <name>=<value> …`, with the lines of a traceback indented below."""

    def __init__(self, *, time_format: str, colours: bool) -> None:
        """`time_format` is for `strftime`; `%f` is cut to milliseconds."""
        super().__init__()
        self._time_format = time_format.replace("%f", "{ms:03}")
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone()
        stamp = time.strftime(self._time_format).format(ms=time.microsecond // 1000)
        level = self._in_colour(_COLOURS.get(record.levelno, ""), f"{record.levelname:<8}")
        message = _escaped(record.getMessage())
        if not _is_own(record):
            message = f"{record.name}: {message}"
        details = " ".join(f"{name}={_value(value)}" for name, value in _details(record).items())
        line = f"{self._in_colour(_DIM, stamp)} {level} {message}"
        if details:
            line += f"  {self._in_colour(_DIM, details)}"
        if record.exc_info:
            line += "".join(f"\n    {_escaped(text)}" for text in self.formatException(record.exc_info).split("\n"))
        return line

    def _in_colour(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colours and colour else text


def _is_own(record: logging.LogRecord) -> bool:
    """Return whether the record is the service's own, not that of a library."""
    return record.name.partition(".")[0] in _OWN_PACKAGES


def _details(record: logging.LogRecord) -> Mapping[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _value(value: object) -> str:
    """Return a value of a detail, quoted if it would not be one word."""
    text = str(value)
    return text if _PLAIN_VALUE.fullmatch(text) and not _CONTROLS.search(text) else _escaped(json.dumps(text, ensure_ascii=False))


def _escaped(text: str) -> str:
    """Return text without control characters, as escapes that JSON knows."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
