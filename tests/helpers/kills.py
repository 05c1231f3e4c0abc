"""Kills a thread at one of its effects, as `kill -9` of its process would: nothing that it does afterwards has an effect.

The fake engine lives in the process of the tests, so these cannot kill a real one; `tests/faults` does.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import pytest
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from tests.fake_engine import FakeEngine

Moment = Literal["before", "after"]

_WRITES = ("INSERT", "UPDATE", "DELETE")
_ENGINE_CALLS = (
    "create",
    "prepare",
    "put",
    "start",
    "wait_until_started",
    "stop",
    "rename",
    "remove",
    "withdraw",
    "create_sandbox",
    "is_sandbox_clean",
)


class Killed(BaseException):
    """Caught by no handler of the product."""


class Killer:
    """Counts the effects of the threads of this name, and kills one right before or after an effect.

    An effect is a commit, a statement that writes outside a transaction, or what a test adds with `at`. `place` is the number of
    the fatal one, from 1, or its name: the first with that name.
    """

    def __init__(self, thread: str, place: int | str, moment: Moment) -> None:
        self.effects: list[str] = []
        self.killed = False
        self._thread, self._place, self._moment = thread, place, moment
        self._lock = threading.Lock()

    @property
    def story(self) -> str:
        """What the thread did, for the message of a test that fails."""
        return f"killed {self._moment} the last of {self.effects}" if self.killed else f"not killed in {self.effects}"

    def at(self, name: str, effect: Callable[[], Any], undo: Callable[[], Any] = lambda: None) -> Any:
        """Do an effect of the current thread, unless it is killed. `undo` is what the death of a process undoes by itself."""
        if threading.current_thread().name != self._thread:
            return effect()
        with self._lock:
            is_dead = self.killed
            if not is_dead:
                self.effects.append(name)
                self.killed = self._place in (name, len(self.effects))
        if not self.killed:
            return effect()
        if not is_dead and self._moment == "after":
            effect()
        else:
            undo()
        raise Killed


@contextmanager
def killing(thread: str, place: int | str, moment: Moment, engine: FakeEngine | None = None) -> Iterator[Killer]:
    """Kill the threads of this name at an effect inside the block; the block may be run by one of them.

    With `engine` its calls that change something are effects, too.
    """
    killer = Killer(thread, place, moment)
    commit, execute, report = BaseDatabaseWrapper._commit, CursorWrapper.execute, threading.excepthook

    def commit_or_die(database: BaseDatabaseWrapper) -> None:
        killer.at("commit", lambda: commit(database), lambda: database._rollback())

    def execute_or_die(cursor: Any, sql: str, params: Any = None) -> Any:
        if sql.startswith(_WRITES) and not cursor.db.in_atomic_block:
            return killer.at(sql.partition(" SET ")[0], lambda: execute(cursor, sql, params))
        return execute(cursor, sql, params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseDatabaseWrapper, "_commit", commit_or_die)
        patch.setattr(CursorWrapper, "execute", execute_or_die)
        patch.setattr(threading, "excepthook", lambda args: None if isinstance(args.exc_value, Killed) else report(args))
        for name in _ENGINE_CALLS if engine else ():
            patch.setattr(engine, name, _fatal(killer, name, getattr(engine, name)))
        with suppress(Killed):
            yield killer


def _fatal(killer: Killer, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: killer.at(name, lambda: call(*args, **kwargs))
