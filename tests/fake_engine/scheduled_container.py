"""A container of the fake engine that schedules."""

from dataclasses import replace

from jobs.engine.protocol import Observation, Phase
from jobs.errors import ContainerConflict, ContainerNotFound, JobError
from tests.fake_engine.process_container import FakeContainer


class ScheduledContainer(FakeContainer):
    """A container that is told to start, and starts later."""

    merges_streams = True

    _is_requested = False  # to start
    _failure: JobError | None = None  # of the start
    _waiting = ""
    _end_cause = ""
    _lost = False
    _over_disk_limit = False

    def observe(self) -> Observation:
        with self._changed:
            seen = replace(super().observe(), waiting=self.waiting)
            return replace(seen, lost=self._lost, over_disk_limit=self._over_disk_limit, end_cause=self._end_cause)

    @property
    def phase(self) -> Phase:
        phase = super().phase
        return "starting" if phase == "created" and self._is_requested and self._failure is None else phase

    @property
    def waiting(self) -> str:
        """What it waits for, if it is starting."""
        return self._waiting if self.phase == "starting" else ""

    @property
    def has_run(self) -> bool:
        """Whether its process has run. Raise the error with which its start has failed."""
        if self._failure is not None:
            raise self._failure
        return self.phase in ("running", "ended")

    def start(self) -> None:
        """Request the start. Raise `ContainerConflict` if that was done before."""
        with self._changed:
            if self._is_requested:
                raise ContainerConflict(f"the container {self.name} was started before")
            if self._removed:
                raise ContainerNotFound(f"No such container: {self.name}")
            self._is_requested = True

    def place(self, obstacle: str) -> None:
        """Start it if that was requested and there is no obstacle; else it waits for that."""
        with self._changed:
            if self.phase == "starting" and not self._removed:
                if not obstacle:
                    super().start()
                self._waiting = obstacle
            self._changed.notify_all()

    def fail(self, error: JobError) -> None:
        """Let its start fail: it will not be started again."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def end(self, cause: str, *, lost: bool, over_disk_limit: bool) -> None:
        """End its process as the engine does for this cause, and wait for the end."""
        with self._changed:
            self._end_cause, self._lost, self._over_disk_limit = cause, lost, over_disk_limit
        self.kill()

    def mark_removed(self, *, force: bool) -> None:
        with self._changed:
            if self.phase == "starting" and not force:
                raise ContainerConflict(f"the container {self.name} is starting")
            super().mark_removed(force=force)
