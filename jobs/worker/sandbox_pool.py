"""The network sandboxes of one worker: keeps some ready, checks those that jobs have used, adopts those of dead workers.

Two threads make all calls to the engine, each one after the other: one checks the sandboxes that jobs give back, the other does
the rest. Making a sandbox takes a hundred times as long as a check, for which the next job may be waiting. A sandbox is free only
after the engine has said that no container has joined it and that it is clean. What fails is repeated later by itself: a sandbox
that the engine cannot remove, say, holds up no other.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple
from uuid import UUID

from django.utils import timezone

from jobs.engine.protocol import Engine, Observation
from jobs.errors import ContainerConflict, ContainerNotFound, EngineRefused, EngineUnavailable, JobError
from jobs.models import Node, Worker
from jobs.running.container_labels import INSTANCE_LABEL, NETWORK_LABEL, NODE_LABEL, SANDBOX_LABEL, UUID_LABEL
from jobs.running.network_sandboxes import Sandbox
from jobs.worker.sandbox_table import SandboxState, SandboxTable
from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE, release_connection, short_read
from orchestrator_site.base.intervals import SandboxIntervals
from orchestrator_site.base.log_context import log_context

logger = logging.getLogger(__name__)


class _Step(NamedTuple):
    """A call to the engine that is due, or that has failed and is paused."""

    verb: Literal["make", "check", "remove", "adopt", "look for"]
    token: str = ""  # of the sandbox, if it exists


_Due = tuple[_Step, Callable[[], None]]
_Steps = Callable[[float], Iterator[_Due]]


@dataclass(frozen=True, slots=True)
class _Pause:
    failures: int
    until: float


class SandboxPool(SandboxTable):
    """The sandboxes of a worker, and the threads that keep them as the table says."""

    def __init__(
        self,
        engine: Engine,
        node: Node,
        instance: str,
        worker_id: Callable[[], UUID],
        size: int | None,
        intervals: SandboxIntervals = SandboxIntervals(),
    ) -> None:
        """See `SandboxTable`."""
        super().__init__(node, worker_id, size, intervals)
        self._engine = engine
        self._instance = instance
        self._found: dict[str, Sandbox] = {}  # by token: those of other workers, which are dead
        self._look_due = size != 0  # else the removal of leftovers finds those of an earlier configuration
        self._pauses: dict[_Step, _Pause] = {}  # after failures
        self._threads = [
            threading.Thread(target=self._work, args=[steps], name="sandboxes", daemon=True)
            for steps in (self._checks, self._other_steps)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop without waiting for the engine. The sandboxes stay, for the next worker."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            self._freed.notify_all()

    # -- sandboxes of dead workers ------------------------------------------------------------------------

    def look(self) -> None:
        """Look for the sandboxes of dead workers soon."""
        with self._changed:
            self._look_due = self._limit > 0
            self._changed.notify_all()

    def sort(self, containers: Iterable[Observation]) -> None:
        """Compare the sandboxes with those among `containers`, which the engine has just listed."""
        with short_read():  # after the list: the owner of a sandbox that was listed had a row by then, unless it is dead
            workers = dict(Worker.objects.values_list("pk", "node"))
        mine = self._worker_id()
        with self._changed:
            self._share(sum(node == self._node.pk for node in workers.values()))
            self._found.clear()
            for container in containers:
                sandbox = self._read(container)
                if sandbox is None:
                    continue
                if sandbox.token not in self._all:
                    if sandbox.owner == mine or sandbox.owner not in workers:
                        self._found[sandbox.token] = sandbox
                elif self._all[sandbox.token][1] is SandboxState.FREE and not _runs(sandbox, container):
                    self._put(sandbox, SandboxState.UNCHECKED)
            for sandbox in self._in(SandboxState.RESERVED):
                self._put(sandbox, SandboxState.UNCHECKED)
            known = {"", *self._all, *self._found}
            self._pauses = {step: pause for step, pause in self._pauses.items() if step.token in known}
            self._changed.notify_all()

    def _read(self, container: Observation) -> Sandbox | None:
        """Return the sandbox that a container is, or None if it is none."""
        labels = container.labels
        token = labels.get(SANDBOX_LABEL)
        if token is None or UUID_LABEL in labels:
            return None
        if token in self._all:
            return self._all[token][0]
        age = max(0.0, (timezone.now() - container.created_at).total_seconds())  # negative if the engine's clock is ahead
        with suppress(ValueError):
            owner = UUID(container.name.removeprefix(f"{self._instance}-sandbox-").removesuffix(f"-{token}"))
            return Sandbox(container.name, token, owner, labels.get(NETWORK_LABEL, ""), time.monotonic() - age)
        return None

    # -- the threads --------------------------------------------------------------------------------------

    def _work(self, steps: _Steps) -> None:
        with log_context(node=self._node.name):
            while due := self._next_step(steps):
                self._do(*due)

    def _do(self, step: _Step, call: Callable[[], None]) -> None:
        try:
            call()
        except (JobError, *DATABASE_UNAVAILABLE) as error:
            self._fail(step, f"cannot {step.verb} a network sandbox for now; jobs may start without: {error}")
        except Exception:
            self._fail(step, f"an unexpected error while trying to {step.verb} a network sandbox", exc_info=True)
        else:
            with self._changed:
                self._pauses.pop(step, None)
        finally:
            release_connection()

    def _fail(self, step: _Step, message: str, *, exc_info: bool = False) -> None:
        with self._changed:
            if all(other.verb != step.verb for other in self._pauses):
                logger.warning(message, exc_info=exc_info)
            failures = self._pauses[step].failures if step in self._pauses else 0
            seconds = min(self._intervals.retry * 2 ** min(failures, 20), self._intervals.retry_max)
            self._pauses[step] = _Pause(failures + 1, time.monotonic() + seconds)

    def _next_step(self, steps: _Steps) -> _Due | None:
        """Wait for one of `steps` to be due, and return it; None to stop."""
        with self._changed:
            while not self._stopping:
                now = time.monotonic()
                for step, call in steps(now):
                    if step not in self._pauses or now >= self._pauses[step].until:
                        return step, call
                self._changed.wait(self._seconds_to_next_step(now))
        return None

    def _checks(self, _now: float) -> Iterator[_Due]:
        for sandbox in self._in(SandboxState.UNCHECKED):
            yield _Step("check", sandbox.token), partial(self._check, sandbox)

    def _other_steps(self, now: float) -> Iterator[_Due]:
        if self._look_due:
            yield _Step("look for"), self._look
        for sandbox in self._found.values():
            yield _Step("adopt", sandbox.token), partial(self._adopt, sandbox)
        self._resize(now)
        for sandbox in self._in(SandboxState.UNWANTED):
            yield _Step("remove", sandbox.token), partial(self._remove, sandbox)
        if self._surplus() < 0 and len(self._all) < 2 * self._limit:  # an engine that removes none is not filled up
            yield _Step("make"), self._make

    def _seconds_to_next_step(self, now: float) -> float | None:
        times = [sandbox.made_at + self._intervals.lifetime for sandbox in self._in(SandboxState.FREE)]
        times.extend(pause.until for pause in self._pauses.values())
        if self._grows and self._target > 1:
            times.append(self._resized_at + self._intervals.resize)
        return min((moment - now for moment in times if moment > now), default=None)

    # -- steps. One that fails is repeated ----------------------------------------------------------------

    def _check(self, sandbox: Sandbox) -> None:
        """Free a sandbox, unless it must be removed or is in use. If the engine does not say, it may be just overloaded."""
        found = self._engine.list({SANDBOX_LABEL: sandbox.token})
        runs = any(_runs(sandbox, container) for container in found)
        if runs and any(UUID_LABEL in container.labels for container in found):
            with self._changed:
                self._put(sandbox, SandboxState.RESERVED)
            return
        is_clean = runs and self._is_current(sandbox) and self._is_clean(sandbox)
        with self._changed:
            if is_clean and self._surplus() <= 0:
                self._put(sandbox, SandboxState.FREE)
            else:
                self._dismiss(sandbox)
            if not runs:  # the others may have ended, too: the engine was restarted, say
                for other in self._in(SandboxState.FREE):
                    self._put(other, SandboxState.UNCHECKED)

    def _is_clean(self, sandbox: Sandbox) -> bool:
        with suppress(ContainerNotFound):
            return self._engine.is_sandbox_clean(sandbox.name)
        return False

    def _look(self) -> None:
        self._look_due = False
        try:
            self.sort(self._engine.list({INSTANCE_LABEL: self._instance}))
        except BaseException:
            self._look_due = True
            raise

    def _adopt(self, found: Sandbox) -> None:
        """Take over a sandbox. The rename comes first, so that its former owner does not find it any more.

        Two renames at the same moment may both succeed, one after the other: then the last one counts (see `_runs`). A worker
        that has seen the former name had a row by then.
        """
        mine = self._worker_id()
        adopted = replace(found, name=self._name(mine, found.token), owner=mine)
        taken = True
        if found.name != adopted.name:
            try:
                self._engine.rename(found.name, adopted.name)
            except (ContainerNotFound, ContainerConflict):  # another worker was faster
                taken = False
        with short_read():
            others = Worker.objects.filter(node=self._node.pk).exclude(pk=mine).exists()
        adopted = replace(adopted, contested=others)
        with self._changed:
            if self._found.get(found.token) is found:  # not listed again meanwhile
                del self._found[found.token]
            if taken and adopted.token not in self._all:
                self._put(adopted, SandboxState.UNCHECKED)
                if self._grows:
                    self._target = min(self._limit, max(self._target, len(self._all)))

    def _remove(self, sandbox: Sandbox) -> None:
        with suppress(ContainerConflict):  # it is being removed
            self._engine.remove(sandbox.name, force=True)
        with self._changed:
            self._all.pop(sandbox.token, None)

    def _make(self) -> None:
        """Make a sandbox and free it. It is unwanted until it has been found clean: whatever fails, it is removed."""
        mine, token, network = self._worker_id(), secrets.token_hex(8), self._node.network_name
        sandbox = Sandbox(self._name(mine, token), token, mine, network, time.monotonic())
        labels = {
            INSTANCE_LABEL: self._instance,
            NODE_LABEL: str(self._node.pk),
            SANDBOX_LABEL: token,
            NETWORK_LABEL: network,
        }
        with self._changed:
            self._put(sandbox, SandboxState.UNWANTED)
        try:
            self._engine.create_sandbox(sandbox.name, network, labels)
        except EngineRefused:  # it would refuse all of them
            self._node_limit = self._limit = self._target = 0
            raise
        if not self._is_clean(sandbox):
            raise EngineUnavailable("a new one does not run or is not clean")
        with self._changed:
            self._put(sandbox, SandboxState.FREE)

    def _name(self, owner: UUID, token: str) -> str:
        return f"{self._instance}-sandbox-{owner}-{token}"


def _runs(sandbox: Sandbox, container: Observation) -> bool:
    """Return whether the container is the sandbox, and runs. Under another name another worker has adopted it, too."""
    return container.name == sandbox.name and container.phase == "running"
