"""What log lines are about: fields such as `request_id`, `job` and `node`, which every record of a thread gets meanwhile."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from types import MappingProxyType
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_fields: Final[ContextVar[Mapping[str, str]]] = ContextVar("log_fields", default=MappingProxyType({}))


@contextmanager
def log_context(**fields: str) -> Iterator[None]:
    """Add `fields` to the records of this thread inside, and to those that `add_fields` adds."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


def add_fields(**fields: str) -> None:
    """Add `fields` to the further records of the innermost `log_context` of this thread."""
    _fields.set({**_fields.get(), **fields})


def present_fields() -> Mapping[str, str]:
    """Return the fields that the records of this thread have now."""
    return _fields.get()


def in_this_context(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` such that another thread that calls it logs with the fields that this thread has now."""
    fields = present_fields()

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with log_context(**fields):
            return function(*args, **kwargs)

    return call


class ContextFilter(logging.Filter):
    """Adds the fields of the thread to a record. Details that the record has itself (`extra`) win."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in _fields.get().items():
            if name not in record.__dict__:
                setattr(record, name, value)
        return True
