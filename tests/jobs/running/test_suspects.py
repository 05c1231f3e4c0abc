"""Jobs whose owners die: one that kills its workers is given up, and those beside it are not."""

import threading
from typing import Any

import pytest
from django.db import OperationalError

from jobs import lifecycle, services
from jobs.engine.protocol import Frames
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
from tests.helpers.clock import ManualClock
from tests.helpers.factories import STARTED_AT, claimed, make_job, make_node, make_worker
from tests.helpers.job_checks import event_types
from tests.helpers.kills import Killed
from tests.helpers.service_log import service_log
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed, running

pytestmark = pytest.mark.django_db(transaction=True)

FOREVER = "exec sleep 60"


@pytest.fixture(autouse=True)
def quick(workers: Workers) -> None:
    workers.set_intervals(worker={"tick": 0.05, "proven_harmless": 0.2})


def die(worker: Any) -> None:
    """Declare the worker dead, as soon as it is not claiming a job."""
    wait_for(lambda: declare_dead(worker, Worker.objects.get(pk=worker).counter), 10, "the worker to be dead")


def deaths(job: Job) -> int:
    return Job.objects.get(pk=job.pk).owner_deaths


# -- what counts ---------------------------------------------------------------------------------------------


def test_a_death_counts_and_a_stop_does_not() -> None:
    # Given a job with a worker
    job, node = make_job(), make_node()
    claim = claimed(job, node)

    # When that worker dies, and the next one stops
    die(claim.owner)
    assert deaths(job) == 1
    again = claiming.claim(node.pk, make_worker(node))
    assert again is not None
    sign_off(again.owner)

    # I expect one death
    assert deaths(job) == again.deaths == 1


def test_a_start_resets_the_deaths() -> None:
    job = make_job()
    Job.objects.update(owner_deaths=4)

    lifecycle.started(claimed(job), STARTED_AT)

    assert deaths(job) == 0


def test_running_for_a_while_resets_the_deaths(workers: Workers) -> None:
    # Given a running job whose worker died
    job = make_job(command=FOREVER)
    first = workers.another()
    workers.run(first)
    running(job)
    die(first._heartbeat.worker_id)
    assert deaths(job) == 1

    # When another worker drives it for a while
    workers.run(workers.another())

    # I expect
    wait_for(lambda: deaths(job) == 0, 10, "the deaths to be reset")
    services.cancel(job.id)
    completed(job)


@pytest.mark.parametrize("cut_off", [True, False], ids=["cut off", "frozen"])
def test_a_worker_cut_off_from_the_database_counts_no_death(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, cut_off: bool
) -> None:
    # Given a worker that has a job
    workers.set_intervals(worker={"heartbeat": 0.05, "proven_harmless": 60.0})
    job = make_job(command=FOREVER)
    supervisor = workers.another()
    workers.run(supervisor)
    running(job)
    wait_for(lambda: supervisor._job_watch.owned == {job.pk}, 10, "a check of its rows")
    first = supervisor._heartbeat.worker_id

    # When its heartbeats do not get through, or it is frozen, and another process declares it dead
    may_beat, beat, tried = threading.Event(), Heartbeat.beat, []

    def no_beat(heartbeat: Heartbeat, **options: Any) -> bool:
        if may_beat.is_set():
            return beat(heartbeat, **options)
        if cut_off:
            tried.append(1)
            raise OperationalError("the connection is lost")
        tried.extend([1, 1, 1])
        may_beat.wait(20)
        return beat(heartbeat, **options)

    monkeypatch.setattr(Heartbeat, "beat", no_beat)
    wait_for(lambda: len(tried) >= 3, 10, "it to fail")
    die(first)
    assert deaths(job) == 1
    may_beat.set()
    wait_for(lambda: supervisor._heartbeat.worker_id != first, 10, "it to start over")

    # I expect the death to count only if it was frozen
    wait_for(lambda: deaths(job) == (0 if cut_off else 1), 10, "the count")
    services.cancel(job.id)
    supervisor.run_jobs()
    completed(job)


# -- giving up -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dies_in", "reason", "story"),
    [
        ("create", Reason.START_FAILED, ["exit", "complete"]),
        ("logs", Reason.ENGINE_LOST, ["start", "exit", "output", "complete"]),
    ],
)
def test_a_job_that_kills_its_workers_is_given_up(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch, dies_in: str, reason: Reason, story: list[str]
) -> None:
    # Given a job that kills each worker at one of its steps, and nothing of a killed worker that ticks on and releases its job
    workers.set_intervals(worker={"tick": 60.0, "proven_harmless": 60.0})
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

    # When the next worker claims it and may not touch the container
    before = engine.list({})
    for call in ("inspect", "create", "list", "rename", "remove", "stop"):
        monkeypatch.setattr(engine, call, kill)
    workers.another().run_jobs()
    monkeypatch.undo()

    # I expect the job to fail, its container to be left to the removal of leftovers, and its reservation to be released
    job = completed(job)
    assert (job.status, job.reason, job.exit_code, job.reserved) == (State.FAILED, reason, -1, False)
    assert f"{GIVEN_UP_AFTER} workers in a row died" in job.error
    assert event_types(job) == story
    assert engine.list({}) == before


def test_a_cancelled_job_that_is_given_up_stays_cancelled() -> None:
    # Given a job that is cancelled while it runs
    job, node = make_job(), make_node()
    claim = claimed(job, node)
    lifecycle.started(claim, STARTED_AT)
    services.cancel(job.id)

    # When it is given up
    lifecycle.give_up(claim, "its workers died")

    # I expect it to stay cancelled
    job.refresh_from_db()
    assert (job.status, job.error, event_types(job)) == (State.CANCELLED, "", ["start", "exit", "complete"])
    assert job.completed_at is not None


def test_jobs_beside_one_that_kills_its_workers_run_on(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given running jobs, one of which freezes each worker that drives it
    monkeypatch.setattr("jobs.worker.supervisor.hint", lambda *_: False)  # so that each supervisor calls threads of its own
    jobs = [make_job(command=FOREVER, cpu_millis=100) for _ in range(5)]
    killer, others = jobs[3], [*jobs[:3], jobs[4]]
    supervisor = workers.another()
    for job in jobs:
        running(job)
    frozen, gone, advance = threading.Event(), threading.Event(), Run._advance

    def freeze(run: Run, job: Job, seen: Any) -> Any:
        if job.pk != killer.pk:
            return advance(run, job, seen)
        frozen.set()
        gone.wait(20)
        return None

    monkeypatch.setattr(Run, "_advance", freeze)

    # When one worker after the other dies
    def end(supervisor: Supervisor) -> None:
        die(supervisor._heartbeat.worker_id)
        gone.set()
        supervisor.stop()

    end(supervisor)
    for _ in range(GIVEN_UP_AFTER - 1):
        frozen.clear()
        gone.clear()
        supervisor = workers.another()
        wait_for(frozen.is_set, 20, "the killer to be driven")
        end(supervisor)
    with service_log(caplog) as log:
        workers.another()

        # I expect it to be given up, with a line that names it, and the others to run on
        assert completed(killer).reason == Reason.ENGINE_LOST
        (line,) = wait_for(lambda: log.about("a job is given up"), 20, "the line about it")
    assert line["job"] == killer.id
    wait_for(lambda: not Job.objects.filter(completed_at=None, owner_deaths__gt=0).exists(), 20, "the others to be cleared")
    for job in others:
        assert Job.objects.get(pk=job.pk).status == State.RUNNING
        services.cancel(job.id)
    for job in others:
        assert completed(job).status == State.CANCELLED


# -- one at a time -------------------------------------------------------------------------------------------


def suspect(job: Job, count: int = SUSPECT_AFTER) -> lifecycle.Claim:
    return lifecycle.Claim(job.uuid, job.uuid, 1, count)


def test_a_second_suspect_waits_for_the_end_of_the_trial() -> None:
    # Given a suspect that was claimed
    clock = ManualClock()
    suspects, job = Suspects(clock=clock), make_job()
    with suspects.turn() as may_claim:
        assert may_claim
        suspects.put_on_trial(suspect(job))

    # I expect no other to be claimed before it is cleared
    with suspects.turn() as may_claim:
        assert not may_claim
    suspects.clear(suspect(job))
    with suspects.turn() as may_claim:
        assert may_claim
        suspects.put_on_trial(suspect(job))

    # Nor for 30 s
    clock.now += 29
    with suspects.turn() as may_claim:
        assert not may_claim
    clock.now += 2
    with suspects.turn() as may_claim:
        assert may_claim


def test_only_one_thread_may_claim_a_suspect() -> None:
    suspects = Suspects()
    with suspects.turn() as first, suspects.turn() as second:
        assert (first, second) == (True, False)


def test_suspects_are_claimed_in_order_of_their_deaths() -> None:
    # Given two suspects, and another job
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
def test_each_further_step_resets_the_deaths(step: str) -> None:
    # Given a running job with dead owners
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
            writer.write(Frames("stdout", ["2026-01-01T00:00:00Z"], [b"line\n"]))
            writer.finish()

    # I expect
    assert deaths(job) == 0
