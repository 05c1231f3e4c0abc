"""What a job leaves behind: events, log and containers; and parts of jobs for tests."""

from typing import Any

import pytest

from callbacks.models import Event
from jobs.interrupt import Interrupt
from jobs.models import Job, LogChunk, Node
from jobs.spec import InputSpec
from jobs.states import InputType
from tests.fake_engine import FakeEngine
from tests.helpers.engines import tar_of
from tests.helpers.waiting import wait_for


def event_types(job: Job) -> list[str]:
    """Return the types of the job's events in order, without their prefix."""
    rows = Event.objects.filter(subscription__stream=job.uuid).order_by("sequence").values_list("type", flat=True)
    return [type_.removeprefix("orchestrator.job.") for type_ in rows]


def stored_log(job: Job) -> list[str]:
    """Return the stored lines of the job's log."""
    return [text for chunk in LogChunk.objects.filter(job=job) for _, _, text in chunk.lines]


def wait_until_removed(engine: FakeEngine) -> None:
    """Wait until all containers are removed, which happens after a job is complete."""
    wait_for(lambda: not engine.list({}), 10, "the containers to be removed")
    node = Node.objects.get()
    assert (node.cpu_millis_reserved, node.memory_mib_reserved) == (0, 0)


def remove_containers(engine: FakeEngine) -> None:
    """Remove what failed calls have left of a complete job."""
    for container in engine.list({}):
        assert Job.objects.get().completed_at is not None
        engine.remove(container.name, force=True)


def end_before_first_look(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each start of a process return when it has ended, so that a worker's first look finds it ended."""
    start = engine.start

    def start_and_wait(name: str, **options: Any) -> None:
        start(name, **options)
        if engine._find(name).spec.image:  # a network sandbox has none, and does not end
            engine.wait(name, Interrupt())

    monkeypatch.setattr(engine, "start", start_and_wait)


def file_input(name: str, content: bytes) -> InputSpec:
    return InputSpec(id=name, type=InputType.FILE, path=name, content=content)


def create_go_file(engine: FakeEngine) -> None:
    """Create the file `go`, for which the only job waits, in its workspace."""
    (container,) = engine.list({})
    engine.put(container.name, "/workspace", [tar_of("go", b"")])
