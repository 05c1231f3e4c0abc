"""What the service logs, as production writes it."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from orchestrator_site.base.log_context import ContextFilter
from orchestrator_site.ops.log_formats import JSONFormatter


class ServiceLog:
    """The lines that were logged since the beginning."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def lines(self) -> list[dict[str, Any]]:
        formatter = JSONFormatter()
        return [json.loads(formatter.format(record)) for record in self._caplog.records]

    def of(self, logger: str) -> list[dict[str, Any]]:
        """Return the lines of one logger."""
        return [line for line in self.lines if line["logger"] == logger]

    def about(self, message: str) -> list[dict[str, Any]]:
        """Return the lines whose message contains `message`."""
        return [line for line in self.lines if message in line["message"]]


@contextmanager
def service_log(caplog: pytest.LogCaptureFixture) -> Iterator[ServiceLog]:
    """Collect lines from the level `info` on, with the context of the threads that log them."""
    context = ContextFilter()
    caplog.handler.addFilter(context)
    caplog.set_level(logging.INFO)
    try:
        yield ServiceLog(caplog)
    finally:
        caplog.handler.removeFilter(context)
