"""A worker on a fake cluster, and jobs that wait there for a place."""

from collections.abc import Iterator

import pytest

from jobs.api.waiting_reason import waiting_for
from jobs.models import Job
from tests.fake_engine import SchedulingEngine
from tests.helpers.waiting import wait_for

NO_CPU = "0/2 nodes are available: 2 Insufficient cpu."
NO_MEMORY = "0/2 nodes are available: 2 Insufficient memory."


@pytest.fixture
def cluster() -> Iterator[SchedulingEngine]:
    engine = SchedulingEngine(name="cluster")
    yield engine
    engine.full_because = ""
    engine.close()


def waits_for(job: Job, reason: str) -> None:
    """Wait until the job says that it waits for this."""

    def said() -> bool:
        job.refresh_from_db()
        return waiting_for(job) == reason

    wait_for(said, 20, reason)


def container_of(engine: SchedulingEngine, job: Job) -> str:
    """Return the name of the only container of a job."""
    (name,) = [seen.name for seen in engine.list({}) if str(job.uuid) in seen.name]
    return name
