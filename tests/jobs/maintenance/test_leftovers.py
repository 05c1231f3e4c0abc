"""Which containers are removed as leftovers, on the fake engine."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jobs import services
from jobs.engine.protocol import Engine, EngineInfo
from jobs.maintenance.leftovers import remove_leftovers
from jobs.models import Job
from jobs.running.container_labels import INSTANCE_LABEL, NODE_LABEL, UUID_LABEL
from jobs.worker.supervisor import Supervisor
from tests.fake_engine import FakeEngine, SchedulingEngine
from tests.helpers.engines import Bench
from tests.helpers.factories import make_job
from tests.helpers.fake_clusters import NO_CPU, waits_for
from tests.helpers.workers import Workers, completed, running

pytestmark = pytest.mark.django_db(transaction=True)


class LaterEngine:
    """The engine as it is `seconds` later."""

    def __init__(self, engine: FakeEngine, seconds: float) -> None:
        self._engine = engine
        self._later = timedelta(seconds=seconds)

    def info(self) -> EngineInfo:
        info = self._engine.info()
        return replace(info, clock=info.clock + self._later)

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)


def leave_container(engine: Engine, supervisor: Supervisor, job: Job, command: tuple[str, ...] = ("true",)) -> None:
    """Create a container for the job's first claim."""
    labels = {INSTANCE_LABEL: supervisor.instance, UUID_LABEL: str(job.uuid), NODE_LABEL: str(supervisor.node.pk)}
    engine.create(replace(Bench().spec(command), name=f"{supervisor.instance}-{job.uuid}-1", labels=labels))


def remove(engine: FakeEngine, supervisor: Supervisor, *, seconds_later: float = 3600) -> int:
    later: Engine = LaterEngine(engine, seconds_later)  # type: ignore[assignment]
    return remove_leftovers(later, supervisor.node, supervisor.instance, supervisor.sandboxes.sort)


def deleted_job() -> Job:
    """Return a job whose row is gone."""
    job = make_job()
    Job.objects.filter(pk=job.pk).delete()
    return job


def test_only_containers_without_a_job_are_removed(engine: FakeEngine, workers: Workers) -> None:
    # Given a running job, and the container of a job that was deleted
    job = make_job(command="exec sleep 60")
    supervisor = workers.another()
    workers.run(supervisor)
    running(job)
    (running_container,) = engine.list({})
    leave_container(engine, supervisor, deleted_job())

    # When
    removed = remove(engine, supervisor)

    # I expect only the running job's container to be there
    assert removed == 1
    assert [container.name for container in engine.list({})] == [running_container.name]
    services.cancel(job.id)
    completed(job)


@pytest.mark.parametrize(("age", "removed"), [(29, 0), (31, 1)], ids=["young", "old"])
def test_containers_younger_than_30_seconds_are_kept(engine: FakeEngine, workers: Workers, age: int, removed: int) -> None:
    # Given the container of a job that was deleted
    supervisor = workers.another()
    leave_container(engine, supervisor, deleted_job())

    # When leftovers are removed at this age, by the engine's clock
    assert remove(engine, supervisor, seconds_later=age) == removed

    # I expect
    assert len(engine.list({})) == 1 - removed


def test_a_container_of_another_node_on_the_same_engine_is_kept(engine: FakeEngine, workers: Workers) -> None:
    # Given a running job, and a worker that knows the same engine by another name
    job = make_job(command="exec sleep 60")
    workers.run(workers.another())
    running(job)
    other = workers.another(node_name="renamed")

    # When that worker removes leftovers
    removed = remove(engine, other)

    # I expect the job to run on
    assert removed == 0
    services.cancel(job.id)
    assert completed(job).exit_code == 143


def test_the_container_of_a_requeued_job_is_removed(engine: FakeEngine, workers: Workers) -> None:
    # Given a container that this node created for a job that is not on it any more
    supervisor = workers.another()
    leave_container(engine, supervisor, make_job())

    # When
    removed = remove(engine, supervisor)

    # I expect
    assert removed == 1
    assert engine.list({}) == []


def test_the_process_of_a_job_that_waits_again_is_kept_for_its_next_claim(engine: FakeEngine, workers: Workers) -> None:
    # Given a job that no node has claimed, as after the database was restored, although its process runs
    supervisor = workers.another()
    job = make_job()
    leave_container(engine, supervisor, job, command=("sleep", "60"))
    engine.start(name_of(supervisor, job, 1))
    (before,) = engine.list({})

    # When leftovers are removed before a worker claims it
    assert remove(engine, supervisor) == 0
    workers.run(supervisor)

    # I expect the job to go on with that process
    running(job)
    (container,) = engine.list({})
    assert Job.objects.get(pk=job.pk).started_at == before.started_at == container.started_at
    services.cancel(job.id)
    completed(job)


def test_a_process_of_a_job_that_another_node_has_claimed_is_ended(engine: FakeEngine, workers: Workers) -> None:
    # Given a process that runs here, and its job on another node
    supervisor, other = workers.another(), workers.another(node_name="other")
    job = make_job()
    Job.objects.filter(pk=job.pk).update(node=other.node)
    leave_container(engine, supervisor, job, command=("sleep", "60"))
    engine.start(name_of(supervisor, job, 1))

    # When
    removed = remove(engine, supervisor)

    # I expect
    assert removed == 1
    assert engine.list({}) == []


@pytest.mark.parametrize("phase", ["created", "starting", "running"])
def test_leftovers_in_a_cluster_are_removed_in_each_phase(cluster: SchedulingEngine, tmp_path: Path, phase: str) -> None:
    # Given containers of a deleted job and of one that waits, in a cluster that is full or not
    workers = Workers(cluster, tmp_path)
    supervisor = workers.another()
    cluster.full_because = NO_CPU
    waiting, deleted = make_job(), make_job()
    workers.run(supervisor)
    waits_for(waiting, NO_CPU)
    Job.objects.filter(pk=deleted.pk).delete()
    leave_container(cluster, supervisor, deleted, command=("sleep", "60"))
    name = name_of(supervisor, deleted, 1)
    if phase != "created":
        cluster.start(name)
    if phase == "running":
        cluster.place(name)
    assert cluster.inspect(name).phase == phase

    # When
    removed = remove(cluster, supervisor)

    # I expect the other one to wait on
    assert removed == 1
    assert [seen.name for seen in cluster.list({})] == [name_of(supervisor, waiting, 1)]
    services.cancel(waiting.id)
    completed(waiting)
    workers.stop()


def test_usage_without_a_container_is_forgotten(engine: FakeEngine, workers: Workers) -> None:
    # Given the usage of four containers: one still exists, one was adopted, one was removed under its adopted name, and one
    # belongs to another installation
    supervisor = workers.another()
    kept, adopted, gone, foreign = make_job(), make_job(), make_job(), make_job()
    for job in (kept, adopted, gone):
        leave_container(engine, supervisor, job)
        engine.start(name_of(supervisor, job, 1))
    engine.rename(name_of(supervisor, adopted, 1), name_of(supervisor, adopted, 2))
    engine.rename(name_of(supervisor, gone, 1), name_of(supervisor, gone, 2))
    engine.remove(name_of(supervisor, gone, 2), force=True)
    engine.create(replace(Bench().spec(), name=f"other-{foreign.uuid}-1"))
    engine.start(f"other-{foreign.uuid}-1")
    assert name_of(supervisor, gone, 1) in engine.kept_usage()

    # When
    remove(engine, supervisor, seconds_later=0)

    # I expect only that of the removed container to be forgotten
    assert sorted(engine.kept_usage()) == sorted(
        [name_of(supervisor, kept, 1), name_of(supervisor, adopted, 1), f"other-{foreign.uuid}-1"]
    )


def test_usage_of_a_container_that_starts_meanwhile_is_kept(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a container that starts after the engine was asked for the first of its two lists
    supervisor = workers.another()
    job = make_job()

    def before_it_starts(function: Callable[..., Any], *arguments: Any) -> Any:
        patch.undo()
        found = function(*arguments)
        leave_container(engine, supervisor, job)
        engine.start(name_of(supervisor, job, 1))
        return found

    with monkeypatch.context() as patch:
        for name in ("kept_usage", "list"):
            patch.setattr(engine, name, partial(before_it_starts, getattr(engine, name)))

        # When
        remove(engine, supervisor, seconds_later=0)

    # I expect its usage to be there
    assert engine.kept_usage() == [name_of(supervisor, job, 1)]


def name_of(supervisor: Supervisor, job: Job, claim: int) -> str:
    return f"{supervisor.instance}-{job.uuid}-{claim}"
