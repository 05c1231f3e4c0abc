"""A fake engine that schedules, as a cluster does: containers start on its own time, or wait for a place."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from jobs.engine.protocol import EngineInfo, EngineTraits, RunSpec
from jobs.errors import ContainerNotFound, EngineRefused, JobError
from jobs.interrupt import Interrupt
from tests.fake_engine.fake_engine import FakeEngine
from tests.fake_engine.fault_injection import fallible
from tests.fake_engine.scheduled_container import ScheduledContainer

_START_DELAY = 0.02  # seconds
_HOSTS = 2


class SchedulingEngine(FakeEngine):
    """A fake of a cluster of two equal hosts, without limits on how many containers they run.

    Set `full_because` to keep containers from starting: it is what they wait for. Set it to an empty string to let them start.
    """

    _container_class = ScheduledContainer

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._full_because = ""

    @property
    def full_because(self) -> str:
        return self._full_because

    @full_because.setter
    def full_because(self, reason: str) -> None:
        self._full_because = reason
        self._place_all()

    def place(self, name: str) -> None:
        """Let one container start, whatever keeps the others from it."""
        self._scheduled(name).place("")

    def fail_start(self, name: str, error: JobError) -> None:
        """Let the start of a container fail on its host."""
        self._scheduled(name).fail(error)

    def lose(self, name: str, cause: str) -> None:
        """End a running container as if its host was lost."""
        self._scheduled(name).end(cause, lost=True, over_disk_limit=False)

    def evict(self, name: str, cause: str) -> None:
        """End a running container as if it had written too much."""
        self._scheduled(name).end(cause, lost=False, over_disk_limit=True)

    # -- the engine ------------------------------------------------------------------------------
    @property
    def traits(self) -> EngineTraits:
        return EngineTraits(schedules=True, merges_streams=True, makes_workspace=True, limits_disk=True)

    def info(self) -> EngineInfo:
        info = super().info()
        return replace(
            info,
            cpus=_HOSTS * info.cpus,
            memory_bytes=_HOSTS * info.memory_bytes,
            largest_cpus=info.cpus,
            largest_memory_bytes=info.memory_bytes,
        )

    def create_sandbox(self, name: str, network: str, labels: dict[str, str]) -> None:
        raise EngineRefused("an engine that schedules has no sandboxes")

    @fallible
    def prepare(self, name: str, waiting_for: Callable[[str], None], interrupt: Interrupt) -> None:
        container = self._scheduled(name)
        if container.spec.has_inputs:  # they can be put into it once it has a place
            self._wait(container, name, lambda: not self._obstacle(container.spec), waiting_for, interrupt)

    def start(self, name: str, *, first: bool = False) -> None:
        super().start(name, first=first)
        container = self._scheduled(name)
        if obstacle := self._obstacle(container.spec):
            container.place(obstacle)
        else:
            threading.Timer(_START_DELAY, self._place_all).start()

    @fallible
    def wait_until_started(self, name: str, waiting_for: Callable[[str], None], interrupt: Interrupt) -> None:
        container = self._scheduled(name)
        self._wait(container, name, lambda: container.has_run, waiting_for, interrupt)

    def _wait(
        self,
        container: ScheduledContainer,
        name: str,
        is_over: Callable[[], bool],
        waiting_for: Callable[[str], None],
        interrupt: Interrupt,
    ) -> None:
        said = ""

        def has_changed() -> bool:
            interrupt.check()
            self.check_available()
            return is_over() or self._containers.get(name) is not container or self._obstacle(container.spec) not in ("", said)

        with interrupt.waking(container.notify):
            while True:
                container.wait_for(has_changed)
                if is_over():
                    return
                if self._containers.get(name) is not container:
                    raise ContainerNotFound(f"No such container: {name}")
                said = self._obstacle(container.spec)
                waiting_for(said)

    def _check_size(self, spec: RunSpec) -> None:
        """Accept every size: a larger host may come."""

    def _obstacle(self, spec: RunSpec) -> str:
        """Return why a container cannot start; empty if it can."""
        if spec.cpu_millis > self._cpus * 1000:
            return f"0/{_HOSTS} nodes are available: {_HOSTS} Insufficient cpu."
        return self._full_because

    def _place_all(self) -> None:
        with self._lock:
            containers = list(self._containers.values())
        for container in containers:
            cast(ScheduledContainer, container).place(self._obstacle(container.spec))

    def _scheduled(self, name: str) -> ScheduledContainer:
        return cast(ScheduledContainer, self._find(name))
