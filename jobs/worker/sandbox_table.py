"""Which network sandboxes a worker has, in which state each is, and how many it wants. Makes no call to the engine."""

import math
import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Final
from uuid import UUID

from jobs.models import Node
from jobs.running.network_sandboxes import Sandbox
from orchestrator_site.base.intervals import SandboxIntervals

_MAX_AUTOMATIC: Final = 64  # each takes about 10 MB of the engine's memory, most of it containerd's process


class SandboxState(Enum):
    FREE = auto()
    TAKEN = auto()  # by a job of this worker
    UNCHECKED = auto()  # to be freed, unless it must be removed or is in use
    RESERVED = auto()  # used by a container that is not this worker's to remove
    UNWANTED = auto()  # to be removed


class SandboxTable:
    """The sandboxes of a worker, `size` of them, or as many as jobs have used lately if it is None.

    The workers of a node share that number, and the automatic limit: twice the jobs of one cpu that the node runs at once. Twice,
    because a job gives its cpu back when its end is decided, but its sandbox only when that has been checked.
    """

    def __init__(self, node: Node, worker_id: Callable[[], UUID], size: int | None, intervals: SandboxIntervals) -> None:
        """`worker_id` returns the current id of the worker, which changes if it was declared dead."""
        self._node = node
        self._worker_id = worker_id
        self._grows = size is None
        self._node_limit = min(max(1, 2 * node.cpu_millis_total // 1000), _MAX_AUTOMATIC) if size is None else size
        self._intervals = intervals
        self._limit = self._node_limit
        self._target = min(1, self._limit) if self._grows else self._limit
        self._all: dict[str, tuple[Sandbox, SandboxState]] = {}  # by token; those whose state changed last come last
        self._least_free = 0  # since the last look at the size
        self._resized_at = time.monotonic()
        self._given_back_at = -math.inf
        self._stopping = False
        lock = threading.RLock()
        self._changed = threading.Condition(lock)  # there is something to do
        self._freed = threading.Condition(lock)

    # -- called by runs -----------------------------------------------------------------------------------

    def take(self) -> Sandbox | None:
        """See `Sandboxes.take`."""
        give_up = time.monotonic() + self._intervals.wait
        with self._changed:
            while (sandbox := self._take_free()) is None:
                self._least_free = 0
                if self._grows and self._target < self._limit:
                    self._target += 1
                    self._changed.notify_all()
                    return None
                now = time.monotonic()
                soon = min(self._given_back_at + self._intervals.turnover, give_up)
                if self._stopping or now >= soon:
                    return None
                self._freed.wait(soon - now)
            return sandbox

    def give_back(self, sandbox: Sandbox) -> None:
        """See `Sandboxes.give_back`."""
        with self._changed:
            if sandbox.token in self._all:
                self._put(sandbox, SandboxState.UNCHECKED)
                self._given_back_at = time.monotonic()

    # -- call these with the lock held ------------------------------------------------------------

    def _in(self, state: SandboxState) -> list[Sandbox]:
        return [sandbox for sandbox, its_state in self._all.values() if its_state is state]

    def _put(self, sandbox: Sandbox, state: SandboxState) -> None:
        self._all.pop(sandbox.token, None)
        self._all[sandbox.token] = sandbox, state
        if state is SandboxState.FREE:
            self._freed.notify()
        if state is not SandboxState.TAKEN:
            self._changed.notify_all()

    def _take_free(self) -> Sandbox | None:
        free = self._in(SandboxState.FREE)
        while free:
            sandbox = free.pop()
            if self._is_current(sandbox):
                self._put(sandbox, SandboxState.TAKEN)
                self._least_free = min(self._least_free, len(free))
                return sandbox
            self._dismiss(sandbox)
        return None

    def _dismiss(self, sandbox: Sandbox) -> None:
        """Use a sandbox no more. If this worker was declared dead, another one may have adopted it: then only forget it."""
        self._put(sandbox, SandboxState.UNWANTED)
        if sandbox.owner != self._worker_id():
            del self._all[sandbox.token]

    def _is_current(self, sandbox: Sandbox) -> bool:
        """Return whether a job may still get this sandbox."""
        is_old = time.monotonic() - sandbox.made_at >= self._intervals.lifetime
        return sandbox.owner == self._worker_id() and sandbox.network == self._node.network_name and not is_old

    def _surplus(self) -> int:
        """Return by how many the wanted sandboxes exceed the target; negative if some are missing."""
        return len(self._all) - len(self._in(SandboxState.UNWANTED)) - self._target

    def _resize(self, now: float) -> None:
        """Choose sandboxes to be removed: those that no job needed for a while, and one that is old."""
        free = self._in(SandboxState.FREE)
        if self._grows and now - self._resized_at >= self._intervals.resize:
            self._target = max(min(1, self._limit), self._target - self._least_free)
            self._least_free, self._resized_at = len(free), now
        surplus = max(0, self._surplus())
        for sandbox in free[:surplus]:
            self._dismiss(sandbox)
        if self._surplus() >= 0:  # one at a time: the next when there is another in its place
            for sandbox in [sandbox for sandbox in free[surplus:] if not self._is_current(sandbox)][:1]:
                self._dismiss(sandbox)

    def _share(self, workers: int) -> None:
        """Let this many workers share what the node may have."""
        self._limit = -(-self._node_limit // max(1, workers))
        self._target = min(self._target, self._limit) if self._grows else self._limit
