"""Does periodic duties one after the other. One statement asks for all of them whether there is anything to do."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.db import DatabaseError, InterfaceError
from django.db.models import QuerySet

from orchestrator_site.base.db.existence import ExistenceQuery
from orchestrator_site.base.db.transactions import release_connection, short_read

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Duty:
    """Something to do every `period` seconds, if `rows` finds any. Without `rows` always.

    `rows` is called once: its query may contain the database's time, but not the present time of this process.
    """

    period: float
    do: Callable[[], object]
    rows: Callable[[], QuerySet[Any]] | None = None
    nothing: Callable[[], object] | None = None  # what to do if there are no rows


class Duties:
    """The duties of one thread."""

    def __init__(self, duties: Sequence[Duty], together: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Do those together that are due within `together` seconds."""
        self._due = {duty: clock() for duty in duties}
        self._together = together
        self._clock = clock
        self._queries: dict[tuple[Duty, ...], ExistenceQuery] = {}

    def do_until(self, stopping: threading.Event) -> None:
        """Do the duties until `stopping` is set. Errors are logged."""
        while not stopping.is_set():
            self.do_due()
            stopping.wait(max(0.0, min(self._due.values()) - self._clock()))

    def do_due(self) -> None:
        now = self._clock()
        due = [duty for duty, at in self._due.items() if at <= now + self._together]
        self._due |= {duty: now + duty.period for duty in due}
        for duty in due:  # first those that do not depend on the statement below
            if duty.rows is None:
                _logging_errors(duty.do)
        if asked := tuple(duty for duty in due if duty.rows):
            _logging_errors(partial(self._do_with_rows, asked))

    def _do_with_rows(self, duties: tuple[Duty, ...]) -> None:
        try:
            found = self._have_rows(duties)
        except Exception:
            if len(duties) == 1:
                raise
            for duty in duties:  # one query that fails must not stop the duties of the others
                _logging_errors(partial(self._do_with_rows, (duty,)))
            return
        for duty, has_rows in zip(duties, found, strict=True):
            if has_rows:
                _logging_errors(duty.do)
            elif duty.nothing:
                duty.nothing()

    def _have_rows(self, duties: tuple[Duty, ...]) -> list[bool]:
        if duties not in self._queries:
            self._queries[duties] = ExistenceQuery(*(duty.rows() for duty in duties if duty.rows))
        with short_read():
            return self._queries[duties].ask()


def _logging_errors(call: Callable[[], object]) -> None:
    try:
        call()
    except (DatabaseError, InterfaceError) as error:
        logger.warning("the database does not answer: %s", error)
    except Exception:
        logger.exception("an unexpected error in the relay")
    finally:
        release_connection()
