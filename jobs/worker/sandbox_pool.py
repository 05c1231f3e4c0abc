"""The network sandboxes of one worker: keeps some ready, checks those that jobs have used, adopts those of dead workers.

A thread of its own makes all calls to the engine, one after the other, so that jobs wait for none of them. A sandbox is free only
after the engine has said that it runs, that no container has joined it, and that it is clean.
"""

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final
from uuid import UUID

from jobs.engine.protocol import Engine, Observation
from jobs.errors import ContainerConflict, ContainerNotFound, EngineRefused, JobError
from jobs.models import Node, Worker
from jobs.running.container_labels import INSTANCE_LABEL, NETWORK_LABEL, NODE_LABEL, SANDBOX_LABEL, UUID_LABEL
from jobs.running.network_sandboxes import Sandbox
from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE, release_connection, short_read
from orchestrator_site.base.intervals import SandboxIntervals

logger = logging.getLogger(__name__)

_MAX_AUTOMATIC: Final = 64  # each takes about 10 MB of the engine's memory, most of it containerd's process


class SandboxPool:
    """The sandboxes of a worker, `size` of them, or as many as jobs have used lately if it is None.

    The workers of a node share that number, and the automatic limit: twice the jobs of one cpu that the node runs at once. Twice,
    because a job gives its cpu back when its end is decided, but its sandbox only when that has been checked.
    """

    def __init__(
        self,
        engine: Engine,
        node: Node,
        instance: str,
        worker_id: Callable[[], UUID],
        size: int | None,
        intervals: SandboxIntervals = SandboxIntervals(),
    ) -> None:
        """`worker_id` returns the current id of the worker, which changes if it was declared dead."""
        self._engine = engine
        self._node = node
        self._instance = instance
        self._worker_id = worker_id
        self._grows = size is None
        self._node_limit = min(max(1, 2 * node.cpu_millis_total // 1000), _MAX_AUTOMATIC) if size is None else size
        self._intervals = intervals
        self._limit = self._node_limit
        self._target = min(1, self._limit) if self._grows else self._limit
        self._all: dict[str, Sandbox] = {}  # by token: those in the following lists, and those that jobs of this worker use
        self._free: list[Sandbox] = []
        self._unchecked: deque[Sandbox] = deque()
        self._unwanted: deque[Sandbox] = deque()  # to be removed
        self._reserved: list[Sandbox] = []  # used by a container that is not this worker's to remove
        self._found: deque[Sandbox] = deque()  # of other workers, which are dead
        self._look_due = size != 0  # else the removal of leftovers finds those of an earlier configuration
        self._least_free = 0  # since the last look at the size
        self._resized_at = time.monotonic()
        self._failures = 0  # since a sandbox was last freed
        self._retry_at = 0.0
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="sandboxes", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop without waiting for the engine. The sandboxes stay, for the next worker."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    # -- called by runs -----------------------------------------------------------------------------------

    def take(self) -> Sandbox | None:
        """See `Sandboxes.take`."""
        mine = self._worker_id()
        with self._changed:
            while self._free:
                sandbox = self._free.pop()
                if sandbox.owner != mine:  # this worker was declared dead: another one may have adopted it
                    del self._all[sandbox.token]
                elif sandbox.network != self._node.network_name:
                    self._unwanted.append(sandbox)
                else:
                    self._least_free = min(self._least_free, len(self._free))
                    return sandbox
            self._least_free = 0
            if self._grows and self._target < self._limit:
                self._target += 1
            self._changed.notify()
        return None

    def give_back(self, sandbox: Sandbox) -> None:
        """See `Sandboxes.give_back`."""
        with self._changed:
            if sandbox.token in self._all:
                self._unchecked.append(sandbox)
                self._changed.notify()

    # -- sandboxes of dead workers ------------------------------------------------------------------------

    def look(self) -> None:
        """Look for the sandboxes of dead workers soon."""
        with self._changed:
            self._look_due = self._limit > 0
            self._changed.notify()

    def sort(self, containers: Iterable[Observation]) -> None:
        """Compare the sandboxes with those among `containers`, which the engine has just listed."""
        with short_read():  # after the list: the owner of a sandbox that was listed had a row by then, unless it is dead
            workers = dict(Worker.objects.values_list("pk", "node"))
        mine = self._worker_id()
        with self._changed:
            self._limit = -(-self._node_limit // max(1, sum(node == self._node.pk for node in workers.values())))
            self._target = min(self._target, self._limit) if self._grows else self._limit
            self._found.clear()
            for container in containers:
                sandbox = self._read(container)
                if sandbox is None:
                    continue
                if sandbox.token not in self._all:
                    if sandbox.owner == mine or sandbox.owner not in workers:
                        self._found.append(sandbox)
                elif container.phase != "running" and sandbox in self._free:
                    self._free.remove(sandbox)
                    self._unchecked.append(sandbox)
            self._unchecked.extend(self._reserved)
            self._reserved.clear()
            self._changed.notify()

    def _read(self, container: Observation) -> Sandbox | None:
        """Return the sandbox that a container is, or None if it is none."""
        labels = container.labels
        token = labels.get(SANDBOX_LABEL)
        if token is None or UUID_LABEL in labels:
            return None
        if token in self._all:
            return self._all[token]
        with suppress(ValueError):
            owner = UUID(container.name.removeprefix(f"{self._instance}-sandbox-").removesuffix(f"-{token}"))
            return Sandbox(container.name, token, owner, labels.get(NETWORK_LABEL, ""), time.monotonic())
        return None

    # -- the thread ---------------------------------------------------------------------------------------

    def _work(self) -> None:
        while step := self._next_step():
            try:
                step()
            except (JobError, *DATABASE_UNAVAILABLE) as error:
                self._fail(f"no network sandboxes for now; jobs start without: {error}")
            except Exception:
                self._fail("an unexpected error with network sandboxes", exc_info=True)
            finally:
                release_connection()

    def _fail(self, message: str, *, exc_info: bool = False) -> None:
        if not self._failures:
            logger.warning(message, exc_info=exc_info, extra={"node": self._node.name})
        pause = min(self._intervals.retry * 2**self._failures, self._intervals.retry_max)
        self._failures = min(self._failures + 1, 20)
        self._retry_at = time.monotonic() + pause

    def _next_step(self) -> Callable[[], None] | None:
        """Wait for something to do, and return it; None to stop. What jobs wait for comes first."""
        with self._changed:
            while not self._stopping:
                now = time.monotonic()
                if now >= self._retry_at and (step := self._due_step(now)):
                    return step
                self._changed.wait(self._seconds_to_next_step(now))
        return None

    def _due_step(self, now: float) -> Callable[[], None] | None:
        if self._unchecked:
            return partial(self._check, self._unchecked[0])
        if self._look_due:
            return self._look
        if self._found:
            return partial(self._adopt, self._found[0])
        self._resize(now)
        if self._unwanted:
            return partial(self._remove, self._unwanted[0])
        if len(self._all) < self._target:
            return self._make
        return None

    def _seconds_to_next_step(self, now: float) -> float | None:
        if now < self._retry_at:
            return self._retry_at - now
        times = [sandbox.made_at + self._intervals.lifetime for sandbox in self._free]
        if self._grows and self._target > 1:
            times.append(self._resized_at + self._intervals.resize)
        return max(0.0, min(times) - now) if times else None

    def _resize(self, now: float) -> None:
        """Choose sandboxes to be removed: those that no job needed for a while, and one that is old."""
        if self._grows and now - self._resized_at >= self._intervals.resize:
            self._target = max(min(1, self._limit), self._target - self._least_free)
            self._least_free, self._resized_at = len(self._free), now
        while self._free and self._is_one_too_many():
            self._unwanted.append(self._free.pop(0))
        if not self._unwanted:
            self._unwanted.extend([sandbox for sandbox in self._free if self._is_old(sandbox, now)][:1])
            self._free = [sandbox for sandbox in self._free if sandbox not in self._unwanted]

    def _is_one_too_many(self) -> bool:
        return len(self._all) - len(self._unwanted) > self._target

    def _is_old(self, sandbox: Sandbox, now: float) -> bool:
        return now - sandbox.made_at >= self._intervals.lifetime

    # -- steps. One that fails is repeated ----------------------------------------------------------------

    def _check(self, sandbox: Sandbox) -> None:
        """Free a sandbox, unless it must be removed or is in use."""
        found = self._engine.list({SANDBOX_LABEL: sandbox.token})
        runs = any(container.name == sandbox.name and container.phase == "running" for container in found)
        in_use = any(UUID_LABEL in container.labels for container in found)
        is_clean = runs and not in_use and self._is_clean(sandbox)
        with self._changed:
            self._unchecked.popleft()
            if runs and in_use:
                self._reserved.append(sandbox)
            elif is_clean and self._is_wanted(sandbox):
                self._free.append(sandbox)
                self._failures = 0
            else:
                self._unwanted.append(sandbox)
            if not runs:  # the others may have ended, too: the engine was restarted, say
                self._unchecked.extend(self._free)
                self._free.clear()

    def _is_clean(self, sandbox: Sandbox) -> bool:
        with suppress(ContainerNotFound):
            return self._engine.is_sandbox_clean(sandbox.name)
        return False

    def _is_wanted(self, sandbox: Sandbox) -> bool:
        is_current = sandbox.network == self._node.network_name and not self._is_old(sandbox, time.monotonic())
        return is_current and not self._is_one_too_many()

    def _look(self) -> None:
        self._look_due = False
        try:
            self.sort(self._engine.list({INSTANCE_LABEL: self._instance}))
        except BaseException:
            self._look_due = True
            raise

    def _adopt(self, found: Sandbox) -> None:
        """Take over a sandbox. The rename comes first, so that its former owner does not find it any more."""
        mine = self._worker_id()
        adopted = replace(found, name=self._name(mine, found.token), owner=mine)
        taken = True
        if found.name != adopted.name:
            try:
                self._engine.rename(found.name, adopted.name)
            except (ContainerNotFound, ContainerConflict):  # another worker was faster
                taken = False
        with self._changed:
            if self._found and self._found[0] is found:  # not listed again meanwhile
                self._found.popleft()
            if taken and adopted.token not in self._all:
                self._all[adopted.token] = adopted
                self._unchecked.append(adopted)
                if self._grows:
                    self._target = min(self._limit, max(self._target, len(self._all)))

    def _remove(self, sandbox: Sandbox) -> None:
        with suppress(ContainerConflict):  # it is being removed
            self._engine.remove(sandbox.name, force=True)
        with self._changed:
            self._unwanted.popleft()
            self._all.pop(sandbox.token, None)

    def _make(self) -> None:
        mine, token, network = self._worker_id(), secrets.token_hex(8), self._node.network_name
        sandbox = Sandbox(self._name(mine, token), token, mine, network, time.monotonic())
        labels = {
            INSTANCE_LABEL: self._instance,
            NODE_LABEL: str(self._node.pk),
            SANDBOX_LABEL: token,
            NETWORK_LABEL: network,
        }
        with self._changed:
            self._all[token] = sandbox
        made = False
        try:
            self._engine.create_sandbox(sandbox.name, network, labels)
            made = True
        except EngineRefused:  # it would refuse all of them
            self._node_limit = self._limit = self._target = 0
            raise
        finally:
            with self._changed:
                (self._unchecked if made else self._unwanted).append(sandbox)

    def _name(self, owner: UUID, token: str) -> str:
        return f"{self._instance}-sandbox-{owner}-{token}"
