"""Where and how the service logs: one line for each record, on standard error.

People who watch a terminal get coloured text. A pipe or a file gets JSON in production, where programs collect it, and plain text
from the embedded service.
"""

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from orchestrator_site.base.log_context import ContextFilter
from orchestrator_site.ops.log_formats import JSONFormatter, TextFormatter

_SHORT_TIME = "%H:%M:%S.%f"
_FULL_TIME = "%Y-%m-%dT%H:%M:%S.%f%z"


class OnlyExceptions(logging.Filter):
    """Drops what reports no exception: a status above 499 is in the line about the request."""

    def filter(self, record: logging.LogRecord) -> bool:
        return bool(record.exc_info)


def log_configuration(
    *, embedded: bool, loggers: Mapping[str, Any], stream: TextIO | None = None, variables: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """Return a configuration for `logging.config.dictConfig`, with the levels in `loggers`.

    The records go to `stream`, by default standard error.
    """
    handler = {"class": "logging.StreamHandler", "formatter": "line", "filters": ["context"]}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"context": {"()": ContextFilter}, "exceptions": {"()": OnlyExceptions}},
        "formatters": {"line": _formatter(stream or sys.stderr, variables, embedded=embedded)},
        "handlers": {"stderr": handler | ({"stream": stream} if stream else {})},
        "root": {"handlers": ["stderr"], "level": "INFO"},
        "loggers": dict(loggers),
    }


def _formatter(stream: TextIO, variables: Mapping[str, str], *, embedded: bool) -> dict[str, Any]:
    is_terminal = stream.isatty() or bool(variables.get("FORCE_COLOR"))
    if not (is_terminal or embedded):
        return {"()": JSONFormatter}
    return {
        "()": TextFormatter,
        "time_format": _SHORT_TIME if is_terminal else _FULL_TIME,
        "colours": is_terminal and not variables.get("NO_COLOR") and variables.get("TERM") != "dumb",
    }
