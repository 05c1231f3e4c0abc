"""Jobs whose owners die: one that takes its workers with it ends, and those beside it do not."""

import threading
from typing import Any

import pytest
from django.db import OperationalError

from callbacks.models import Event
from jobs import lifecycle, services
from jobs.engine.protocol import Frame
from jobs.logs.log_writer import LogWriter
from jobs.maintenance.dead_workers import declare_dead, sign_off
from jobs.models import Job, Worker
from jobs.running import claiming
from jobs.running.runner import Run
from jobs.running.suspects import GIVEN_UP_AFTER, SUSPECT_AFTER, Suspects
from jobs.spec import OutputSpec
from jobs.states import OutputType, Reason, State
from jobs.worker.heartbeat import Heartbeat
from jobs.worker.supervisor import Supervisor
from tests.fake_engine import FakeEngine
from tests.helpers.factories import STARTED_AT, claimed, make_job, make_node, make_worker
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed, running

pytestmark = pytest.mark.django_db(transaction=True)

FOREVER = "exec sleep 60"


@pytest.fixture(autouse=True)
def quick(workers: Workers) -> None:
    workers.set_intervals(worker={"tick": 0.05, "proven_harmless": 0.2})


def die(worker: Any) -> None:
    """As observers do with a worker that stands still."""
    assert declare_dead(worker, Worker.objects.get(pk=worker).counter)


def deaths(job: Job) -> int:
    return Job.objects.get(pk=job.pk).owner_deaths


# -- what counts ---------------------------------------------------------------------------------------------


def test_the_death_of_a_worker_counts_and_its_stop_does_not() -> None:
    # Given a job with a worker
    job, node = make_job(), make_node()
    claim = claimed(job, node)

    # When that dies, and the next one hands over
    die(claim.owner)
    assert deaths(job) == 1
    again = claiming.claim(node.pk, make_worker(node))
    assert again is not None
    sign_off(again.owner)

    # I expect one death
    assert deaths(job) == again.deaths == 1


def test_a_job_that_starts_has_its_deaths_forgotten() -> None:
    job = make_job()
    Job.objects.update(owner_deaths=4)

    lifecycle.started(claimed(job), STARTED_AT)

    assert deaths(job) == 0


def test_a_job_that_runs_well_for_a_while_has_its_deaths_forgotten(workers: Workers) -> None:
    # Given a running job whose worker died
    job = make_job(command=FOREVER)
    first = workers.another()
    workers.run(first)
    running(job)
    die(first._heartbeat.worker_id)
    assert deaths(job) == 1

    # When another one drives it
    workers.run(workers.another())

    # I expect
    wait_for(lambda: deaths(job) == 0, 10, "the deaths to be forgotten")
    services.cancel(job.id)
    completed(job)


@pytest.mark.parametrize("cut_off", [True, False], ids=["cut off", "frozen"])
def test_a_worker_that_was_cut_off_from_the_database_did_not_die_of_its_jobs(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, cut_off: bool
) -> None:
    # Given a worker that has a job
    workers.set_intervals(worker={"heartbeat": 0.05, "proven_harmless": 60.0})
    job = make_job(command=FOREVER)
    supervisor = workers.another()
    workers.run(supervisor)
    running(job)
    wait_for(lambda: supervisor._job_watch.owned == {job.pk}, 10, "a look at its rows")
    first = supervisor._heartbeat.worker_id

    # When its heart does not get through for a while, or stands still, and others declare it dead
    may_beat, beat, tried = threading.Event(), Heartbeat.beat, []

    def no_beat(heart: Heartbeat, **options: Any) -> bool:
        if may_beat.is_set():
            return beat(heart, **options)
        if cut_off:
            tried.append(1)
            raise OperationalError("the connection is lost")
        tried.extend([1, 1, 1])
        may_beat.wait(20)
        return beat(heart, **options)

    monkeypatch.setattr(Heartbeat, "beat", no_beat)
    wait_for(lambda: len(tried) >= 3, 10, "it to fail")
    die(first)
    assert deaths(job) == 1
    may_beat.set()
    wait_for(lambda: supervisor._heartbeat.worker_id != first, 10, "it to start anew")

    # I expect the death to count only where it stood still
    wait_for(lambda: deaths(job) == (0 if cut_off else 1), 10, "the count")
    services.cancel(job.id)
    supervisor.run_jobs()
    completed(job)


# -- the end of the guilty -----------------------------------------------------------------------------------


def told(job: Job) -> list[str]:
    rows = Event.objects.filter(subscription__stream=job.uuid).order_by("sequence").values_list("type", flat=True)
    return [type_.removeprefix("orchestrator.job.") for type_ in rows]


class Killed(BaseException):
    """No handler of the product catches it: as if the process were gone."""


@pytest.mark.parametrize(
    ("dies_in", "reason", "story"),
    [
        ("create", Reason.START_FAILED, ["exit", "complete"]),
        ("logs", Reason.ENGINE_LOST, ["start", "exit", "output", "complete"]),
    ],
)
def test_a_job_that_takes_down_its_workers_ends_without_another_look_at_it(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch, dies_in: str, reason: Reason, story: list[str]
) -> None:
    # Given a job that kills each worker as it gets to one step, at once
    workers.set_intervals(worker={"proven_harmless": 60.0})
    job = make_job(command=FOREVER, outputs=(OutputSpec(id="out", type=OutputType.EVENT, path="out"),))

    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(engine, dies_in, kill)
        for _ in range(GIVEN_UP_AFTER):
            supervisor = workers.another()
            with pytest.raises(Killed):
                supervisor.run_jobs()
            die(supervisor._heartbeat.worker_id)

    # When the next one comes by
    before = engine.list({})
    for call in ("inspect", "create", "list", "rename", "remove", "stop"):
        monkeypatch.setattr(engine, call, kill)
    workers.another().run_jobs()
    monkeypatch.undo()

    # I expect the job to end and to say why, its container to be left to the sweep, and its room to be free
    job = completed(job)
    assert (job.status, job.reason, job.exit_code, job.reserved) == (State.FAILED, reason, -1, False)
    assert f"{GIVEN_UP_AFTER} workers in a row died" in job.error
    assert told(job) == story
    assert engine.list({}) == before


def test_a_cancelled_job_that_takes_down_its_workers_ends_as_cancelled() -> None:
    # Given a job whose worker dies as it ends the process
    job, node = make_job(), make_node()
    claim = claimed(job, node)
    lifecycle.started(claim, STARTED_AT)
    services.cancel(job.id)

    # When it is given up
    lifecycle.give_up(claim, "its workers died")

    # I expect the decision to stand
    job.refresh_from_db()
    assert (job.status, job.error, told(job)) == (State.CANCELLED, "", ["start", "exit", "complete"])
    assert job.completed_at is not None


def test_jobs_beside_the_guilty_one_go_on(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given running jobs, one of which freezes each process that looks at it
    monkeypatch.setattr("jobs.worker.supervisor.hint", lambda *_: False)  # so that each supervisor calls threads of its own
    jobs = [make_job(command=FOREVER, cpu_millis=100) for _ in range(5)]
    guilty, innocent = jobs[3], [*jobs[:3], jobs[4]]
    supervisor = workers.another()
    for job in jobs:
        running(job)
    frozen, gone, advance = threading.Event(), threading.Event(), Run._advance

    def freeze(run: Run, job: Job) -> None:
        if job.pk != guilty.pk:
            return advance(run, job)
        frozen.set()
        gone.wait(20)
        return None

    monkeypatch.setattr(Run, "_advance", freeze)

    # When one worker after the other dies of it
    def end(supervisor: Supervisor) -> None:
        die(supervisor._heartbeat.worker_id)
        gone.set()
        supervisor.stop()

    end(supervisor)
    for _ in range(GIVEN_UP_AFTER - 1):
        frozen.clear()
        gone.clear()
        supervisor = workers.another()
        wait_for(frozen.is_set, 20, "the guilty one to be taken up")
        end(supervisor)
    workers.another()

    # I expect it to be given up, and the others to run on
    assert completed(guilty).reason == Reason.ENGINE_LOST
    wait_for(lambda: not Job.objects.filter(completed_at=None, owner_deaths__gt=0).exists(), 20, "the others to be cleared")
    for job in innocent:
        assert Job.objects.get(pk=job.pk).status == State.RUNNING
        services.cancel(job.id)
    for job in innocent:
        assert completed(job).status == State.CANCELLED


# -- one at a time -------------------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def suspect(job: Job, count: int = SUSPECT_AFTER) -> lifecycle.Claim:
    return lifecycle.Claim(job.uuid, job.uuid, 1, count)


def test_a_second_suspect_waits_until_the_first_is_cleared_or_has_had_its_time() -> None:
    # Given a suspect that was taken
    clock = Clock()
    suspects, job = Suspects(clock=clock), make_job()
    with suspects.turn() as may_take:
        assert may_take
        suspects.put_on_trial(suspect(job))

    # I expect no other to be taken before it is cleared
    with suspects.turn() as may_take:
        assert not may_take
    suspects.clear(suspect(job))
    with suspects.turn() as may_take:
        assert may_take
        suspects.put_on_trial(suspect(job))

    # Nor for 30 s
    clock.now = 29.0
    with suspects.turn() as may_take:
        assert not may_take
    clock.now = 31.0
    with suspects.turn() as may_take:
        assert may_take


def test_two_threads_never_take_a_suspect_at_once() -> None:
    suspects = Suspects()
    with suspects.turn() as first, suspects.turn() as second:
        assert (first, second) == (True, False)


def test_jobs_that_are_no_suspects_are_taken_meanwhile_and_the_worst_suspect_first() -> None:
    # Given suspects, and another job
    node = make_node()
    mild, worst, other = make_job(), make_job(), make_job()
    Job.objects.filter(pk=mild.pk).update(owner_deaths=SUSPECT_AFTER, node=node)
    Job.objects.filter(pk=worst.pk).update(owner_deaths=SUSPECT_AFTER + 1, node=node)
    worker = make_worker(node)

    # I expect
    def taken(*, suspects: bool = True) -> Any:
        claim = claiming.claim(node.pk, worker, claiming.startable(downloads=True, uploads=True, suspects=suspects))
        return claim and claim.uuid

    assert taken(suspects=False) == other.pk
    assert taken(suspects=False) is None
    assert [taken(), taken()] == [worst.pk, mild.pk]


@pytest.mark.parametrize("step", ["decided", "exited", "output done", "log read on"])
def test_a_job_that_gets_a_step_further_has_its_deaths_forgotten(step: str) -> None:
    # Given a running job some of whose owners died
    job = make_job(outputs=(OutputSpec(id="out", type=OutputType.EVENT, path="out"),))
    claim = claimed(job)
    lifecycle.started(claim, STARTED_AT)
    if step in ("exited", "output done"):
        lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=STARTED_AT)
    if step == "output done":
        lifecycle.exited(claim, 0)
    Job.objects.update(owner_deaths=4)

    # When
    match step:
        case "decided":
            lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=STARTED_AT)
        case "exited":
            lifecycle.exited(claim, 0)
        case "output done":
            lifecycle.output_done(claim, job.outputs.get(), 1, 0.5, "1")
        case "log read on":
            writer = LogWriter(claim, Job.objects.get(), log_limit=10**9, engine_log_limit=10**9)
            writer.write(Frame(stream="stdout", time="2026-01-01T00:00:00Z", data=b"line\n"))
            writer.finish()

    # I expect
    assert deaths(job) == 0
