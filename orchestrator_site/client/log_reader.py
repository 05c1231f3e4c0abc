"""Reads the log of a job to its end. The cursor is the client's, so a restart of the service loses and repeats no line."""

import time
from collections.abc import Callable
from typing import Final

from orchestrator_site.base.intervals import ClientIntervals
from orchestrator_site.client.interrupts import Interrupts
from orchestrator_site.client.log_output import LogOutput
from orchestrator_site.client.service.api import LogLine, LogPage, Service

_PAGE_LINES: Final = 10_000


class LogReader:
    """The log of one job. Reading can be interrupted while it waits for the service, and goes on where it was."""

    def __init__(
        self,
        service: Service,
        job_id: str,
        output: LogOutput,
        interrupts: Interrupts,
        *,
        tail: int | None = None,
        stream: str | None = None,
        intervals: ClientIntervals = ClientIntervals(),
    ) -> None:
        self._service = service
        self._job_id = job_id
        self._output = output
        self._interrupts = interrupts
        self._intervals = intervals
        self._filter: dict[str, str] = {"stream": stream} if stream else {}
        self._tail = tail
        self._after = 0
        self._is_at_end = False

    def read_stored(self) -> None:
        """Write the lines that are stored now, however many the job goes on to print."""
        end, before = self._page(0.0, tail=0).next, -1
        while before < self._after < end and not self._is_at_end:
            before = self._after  # where it stays if the job was deleted, and its id now belongs to one with a shorter log
            self._read(0.0)
        self._output.settle(self._exact)

    def follow(self, while_idle: Callable[[], bool] = lambda: False) -> None:
        """Write all lines to the end of the log.

        `while_idle` is called when none comes, and returns whether to call it soon again.
        """
        soon, after_lines = True, False
        while not self._is_at_end:
            seconds = self._intervals.line_feed if after_lines else self._seconds(soon)
            asked_at = time.monotonic()
            after_lines = bool(self._read(seconds).lines)
            if self._is_at_end or after_lines:
                continue
            self._output.settle(self._exact)
            soon = while_idle()
            if time.monotonic() - asked_at < seconds / 2:
                self._interrupts.sleep(self._intervals.early_answer)

    def _seconds(self, soon: bool) -> float:
        return self._intervals.waiting_look if soon else self._intervals.long_poll

    def _read(self, seconds: float) -> LogPage:
        """Write a page, after at most `seconds` for its first line."""
        page = self._page(seconds, after=self._after, **({} if self._tail is None else {"tail": self._tail}))
        if page.lines and page.next <= self._after:
            raise self._service.not_the_service()  # it would send these lines for ever
        self._after = max(self._after, page.next)  # before the output, which a signal may interrupt, but which keeps the lines
        self._tail = None
        self._output.write(page.lines)
        if page.complete:
            self._output.settle(self._exact)
            self._is_at_end = True
        return page

    def _page(self, seconds: float, **position: int) -> LogPage:
        with self._interrupts.allowed():
            return self._service.log_page(self._job_id, wait=seconds, limit=_PAGE_LINES, **position, **self._filter)

    def _exact(self, line: LogLine) -> bytes:
        with self._interrupts.allowed():
            return self._service.log_text(self._job_id, after=line.number - 1, limit=1, stream=line.stream)
