"""Pauses of answers: an answer that waits for something to happen gives its thread back meanwhile.

A WSGI application that streams an answer takes a pause just before it yields a part (which may be empty). The web server sends
the part and asks for the next one when the application has ended the pause. When the process stops it asks no more: the answer
then ends after that part.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

_ENVIRON_KEY: Final = "orchestrator.pauses"


class Pause:
    """A pause of one answer."""

    __slots__ = ("_notify", "ended")

    def __init__(self, notify: Callable[["Pause"], object]) -> None:
        """Begin a pause; `notify` is called when it ends."""
        self._notify = notify
        self.ended = False

    def end(self) -> None:
        """Let the answer go on. For any thread."""
        self.ended = True
        self._notify(self)


class Places:
    """The places that a server has for answers that take pauses. Any thread may take one."""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._taken: Counter[str | None] = Counter()
        self.free = count

    def take(self, sharer: str | None) -> bool:
        """Take a place, and return False if there is none for the sharer.

        One that has as many as are left gets no more, so others always find some. This does not hold for None.
        """
        with self._lock:
            if not self.free or (sharer is not None and self._taken[sharer] >= self.free):
                return False
            self._taken[sharer] += 1
            self.free -= 1
            return True

    def give_back(self, sharer: str | None) -> None:
        with self._lock:
            self._taken[sharer] -= 1
            self._taken += Counter()  # without those that have none
            self.free += 1


class Pauses:
    """The pauses that one answer may take. An answer reserves one of the places that the server has for such answers first."""

    __slots__ = ("_notify", "_places", "_reserved", "_sharer", "_taken")

    def __init__(self, places: Places, notify: Callable[[Pause], object]) -> None:
        self._places = places
        self._notify = notify
        self._reserved = False
        self._sharer: str | None = None
        self._taken: Pause | None = None

    @staticmethod
    def of(environ: Mapping[str, Any]) -> "Pauses | None":
        """Return the pauses of the answer to this request; None if the web server is not ours."""
        return environ.get(_ENVIRON_KEY)

    def add_to(self, environ: dict[str, Any]) -> None:
        environ[_ENVIRON_KEY] = self

    def reserve(self, sharer: str | None = None) -> bool:
        """Reserve a place until the answer ends. Return False if all are taken, or as many by the sharer as are left."""
        if not self._reserved:
            self._reserved, self._sharer = self._places.take(sharer), sharer
        return self._reserved

    def take(self) -> Pause:
        """Begin a pause after the part that the application yields next."""
        assert self._reserved, "an answer reserves its place before it pauses"  # noqa: S101 - a mistake of ours, no input
        self._taken = Pause(self._notify)
        return self._taken

    def taken(self) -> Pause | None:
        """Return the pause that begins after the present part, if there is one. For the server."""
        pause, self._taken = self._taken, None
        return pause

    def release(self) -> None:
        """Give the place back, at the end of the answer. For the server."""
        if self._reserved:
            self._reserved = False
            self._places.give_back(self._sharer)
