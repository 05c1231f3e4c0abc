"""Engines and databases that fail while a job runs, on the fake engine."""

from dataclasses import replace
from typing import Any

import pytest
from django.db import InternalError, OperationalError

from jobs import lifecycle
from jobs.errors import EngineUnavailable, Interrupted, OwnershipLost, StartLost
from jobs.models import Job, Node
from jobs.spec import OutputSpec
from jobs.states import OutputType, Reason, State
from tests.fake_engine import FakeEngine
from tests.helpers.encryption_keys import NEW, use_keys
from tests.helpers.factories import make_job
from tests.helpers.job_checks import create_go_file, event_types, file_input, remove_containers, stored_log, wait_until_removed
from tests.helpers.waiting import wait_for
from tests.helpers.workers import QUICK, Workers, completed, running

pytestmark = pytest.mark.django_db(transaction=True)


STEPS = ["needs_pull", "create", "resolve_user", "start", "inspect", "logs", "put", "stat", "get", "remove"]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_one_failed_engine_call_changes_nothing(engine: FakeEngine, workers: Workers, step: str, after: bool) -> None:
    # Given a job that needs every call, and an engine that fails once before or after the call's effect
    job = make_job(
        command="echo ran >> /dev/stdout; cp in out; exit 4",
        inputs=(file_input("in", b"x"),),
        outputs=(OutputSpec(id="out", type=OutputType.EVENT, path="out"),),
    )
    engine.fail_next(step, EngineUnavailable("a hiccup"), after=after)

    # When
    workers.another().run_jobs()

    # I expect the usual events, and the job to have run once
    job = completed(job)
    assert (job.status, job.reason, job.exit_code) == (State.FAILED, Reason.EXIT_CODE, 4)
    assert event_types(job) == ["input", "start", "log", "exit", "output", "complete"]
    assert stored_log(job) == ["ran"]
    remove_containers(engine)
    wait_until_removed(engine)


def test_a_lost_start_is_engine_lost(engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an engine that was killed in the middle of the start
    job = make_job(command="echo ran")

    def start(name: str, **options: Any) -> None:
        raise StartLost("it may have run")

    monkeypatch.setattr(engine, "start", start)

    # When
    workers.another().run_jobs()

    # I expect it not to run a second time
    job = completed(job)
    assert (job.status, job.reason, job.exit_code, job.error) == (State.FAILED, Reason.ENGINE_LOST, -1, "it may have run")
    assert event_types(job) == ["exit", "complete"]
    wait_until_removed(engine)


@pytest.mark.parametrize(("command", "reason", "code"), [("exit 5", Reason.EXIT_CODE, 5), ("exec sleep 60", Reason.TIMEOUT, 143)])
def test_a_process_without_a_start_time_ends_normally(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch, command: str, reason: Reason, code: int
) -> None:
    # Given an engine that was killed in the middle of the start, and found the process after its restart
    job = make_job(command=command, timeout_seconds=1)
    start, inspect = engine.start, engine.inspect

    def start_and_die(name: str, **options: Any) -> None:
        start(name, **options)
        raise EngineUnavailable("killed")

    monkeypatch.setattr(engine, "start", start_and_die)
    monkeypatch.setattr(engine, "inspect", lambda name: replace(inspect(name), started_at=None))

    # When
    workers.another().run_jobs()

    # I expect
    job = completed(job)
    assert (job.reason, job.exit_code) == (reason, code)
    assert job.started_at is not None
    wait_until_removed(engine)


def test_a_removed_container_is_engine_lost(engine: FakeEngine, workers: Workers) -> None:
    # Given a running job whose container is removed
    job = make_job(command="exec sleep 60", outputs=(OutputSpec(id="out", type=OutputType.EVENT, path="out"),))
    workers.run(workers.another())
    running(job)
    engine.remove(engine.list({})[0].name, force=True)

    # I expect
    job = completed(job)
    assert (job.status, job.reason, job.exit_code) == (State.FAILED, Reason.ENGINE_LOST, -1)
    assert event_types(job) == ["start", "exit", "output", "complete"]
    wait_until_removed(engine)


@pytest.mark.parametrize("program", ["exec sleep 60", "trap 'exit 0' TERM; sleep 60 & wait"])
def test_a_process_ended_by_an_engine_restart_is_engine_lost(engine: FakeEngine, workers: Workers, program: str) -> None:
    # Given a running job
    job = make_job(command=f"echo begun; {program}", outputs=(OutputSpec(id="out", type=OutputType.EVENT, path="out"),))
    workers.run(workers.another())
    wait_for(lambda: stored_log(job), 20, "its first line")

    # When its engine is restarted
    engine.restart()

    # I expect no exit code, whatever the process returned, and otherwise the usual end
    job = completed(job)
    assert (job.status, job.reason, job.exit_code) == (State.FAILED, Reason.ENGINE_LOST, -1)
    assert "restarted" in job.error
    assert job.finished_at is not None
    assert stored_log(job) == ["begun"]
    assert event_types(job) == ["start", "log", "exit", "output", "complete"]
    wait_until_removed(engine)


def test_a_job_started_after_an_engine_restart_ends_normally(engine: FakeEngine, workers: Workers) -> None:
    # Given
    engine.restart()
    job = make_job(command="exit 5")

    # When
    workers.another().run_jobs()

    # I expect
    job = completed(job)
    assert (job.reason, job.exit_code) == (Reason.EXIT_CODE, 5)


def test_a_job_survives_an_engine_outage(engine: FakeEngine, workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    # Given a running job
    job = make_job(command="while [ ! -e go ]; do sleep 0.02; done; exit 5")
    workers.run(workers.another())
    running(job)

    # When its engine stops answering and comes back
    engine.unavailable = True
    wait_for(lambda: "trying again" in caplog.text, 10, "the run to notice")
    assert Job.objects.get().status == State.RUNNING
    engine.unavailable = False
    create_go_file(engine)

    # I expect
    assert completed(job).exit_code == 5


def test_an_overdue_job_does_not_speed_up_the_ticks(engine: FakeEngine, workers: Workers) -> None:
    # Given a running job on an engine that stops answering
    job = make_job(command="exec sleep 60", timeout_seconds=1)
    supervisor = workers.another()
    workers.run(supervisor)
    running(job)
    (run,) = supervisor._runs.snapshot()
    engine.unavailable = True

    # When its time is up
    wait_for(lambda: run.overdue, 10, "the time-out")

    # I expect the supervisor to tick at its usual interval
    assert supervisor._seconds_to_next_tick() == QUICK.worker.tick

    # And the job to time out once the engine is back
    engine.unavailable = False
    assert completed(job).reason == Reason.TIMEOUT


def test_a_removed_network_is_created_again(engine: FakeEngine, workers: Workers) -> None:
    # Given an idle worker whose network was pruned
    supervisor = workers.another()
    removed = supervisor.node.network_id
    engine.remove_network(removed)

    # When it runs two jobs
    jobs = [make_job(), make_job()]
    supervisor.run_jobs()

    # I expect both to run on one new network, which is stored in the node's row
    assert [completed(job).status for job in jobs] == [State.COMPLETED] * 2
    (network,) = engine.list_networks({})
    assert network != removed
    assert Node.objects.get().network_id == network


READ_ONLY = InternalError("cannot execute UPDATE in a read-only transaction")


def fail_to_decide(monkeypatch: pytest.MonkeyPatch, *failures: Exception) -> None:
    """Make the next decisions fail with these errors, one after the other."""
    decide, to_come = lifecycle.decide, list(failures)

    def flaky(*args: Any, **kwargs: Any) -> None:
        if to_come:
            raise to_come.pop(0)
        decide(*args, **kwargs)

    monkeypatch.setattr(lifecycle, "decide", flaky)


@pytest.mark.parametrize(
    "failures",
    [
        pytest.param([OperationalError("the connection is lost")], id="away once"),
        pytest.param([READ_ONLY] * 10, id="a primary that was demoted"),
    ],
)
def test_a_database_outage_repeats_nothing(workers: Workers, monkeypatch: pytest.MonkeyPatch, failures: list[Exception]) -> None:
    # Given a database that fails when the decision is committed
    job = make_job(command="echo ran; exit 6")
    fail_to_decide(monkeypatch, *failures)

    # When
    workers.another().run_jobs()

    # I expect the same decision, and each event once

    job = completed(job)
    assert job.exit_code == 6
    assert event_types(job) == ["start", "log", "exit", "complete"]


def test_repeated_unexpected_errors_fail_the_job(engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a bug in the description of containers, which every try runs into after a long time
    job = make_job()
    monkeypatch.setattr("jobs.running.claimed_container.ClaimedContainer._spec", lambda *_: 1 / 0)
    workers.set_intervals(run={"retries": (0.01,), "stable": 0.0})
    workers.run(workers.another())

    # I expect the job to fail with this reason
    job = completed(job)
    assert (job.status, job.reason) == (State.FAILED, Reason.START_FAILED)
    assert "internal error" in job.error
    assert event_types(job) == ["exit", "complete"]


def test_giving_up_waits_for_the_database(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a bug in the description of containers, and a database that refuses one write
    job = make_job()
    monkeypatch.setattr("jobs.running.claimed_container.ClaimedContainer._spec", lambda *_: 1 / 0)
    workers.set_intervals(run={"retries": (0.01,)})
    fail_to_decide(monkeypatch, READ_ONLY)

    # When
    workers.another().run_jobs()

    # I expect
    assert completed(job).reason == Reason.START_FAILED


def unexpected_errors(caplog: pytest.LogCaptureFixture) -> int:
    return caplog.text.count("an unexpected error in a run")


@pytest.mark.parametrize(
    ("stable_after", "reason"),
    [pytest.param(60.0, Reason.ENGINE_LOST, id="in a row"), pytest.param(0.0, Reason.EXIT_CODE, id="far apart")],
)
def test_unexpected_errors_in_a_row_fail_a_running_job(
    engine: FakeEngine,
    workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    stable_after: float,
    reason: Reason,
) -> None:
    # Given a job whose log cannot be followed five times, in a row or far apart
    workers.set_intervals(run={"retries": (0.01,), "stable": stable_after})
    for _ in range(5):
        engine.fail_next("logs", KeyError("ID"))
    job = make_job(command="while [ ! -e go ]; do sleep 0.02; done; exit 5")

    # When it runs
    workers.run(workers.another())
    wait_for(lambda: unexpected_errors(caplog) == 5, 10, "the errors")
    if reason == Reason.EXIT_CODE:
        create_go_file(engine)

    # I expect
    assert completed(job).reason == reason


@pytest.mark.parametrize("between", [Interrupted("woken"), OwnershipLost("read it again")])
def test_expected_errors_reset_the_count_of_unexpected_ones(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, between: Exception
) -> None:
    # Given a job whose log cannot be followed eight times, with an expected error half-way
    workers.set_intervals(run={"retries": (0.01,)})
    for failure in [KeyError("ID")] * 4 + [between] + [KeyError("ID")] * 4:
        engine.fail_next("logs", failure)
    job = make_job(command="while [ ! -e go ]; do sleep 0.02; done; exit 5")

    # When it runs
    workers.run(workers.another())
    wait_for(lambda: unexpected_errors(caplog) == 8, 10, "the errors")
    create_go_file(engine)

    # I expect the job to end normally
    assert completed(job).exit_code == 5


def test_a_job_waits_for_the_key_of_its_secrets(engine: FakeEngine, workers: Workers, settings: Any) -> None:
    # Given a job that another process has stored, with a key that this worker has not yet
    (key,) = settings.CONFIGURATION.encryption_keys
    use_keys(settings, NEW)
    job = make_job(command="echo $TOKEN; cat in", environment={"TOKEN": "secret"}, inputs=(file_input("in", b"content"),))
    use_keys(settings, key)

    # When a worker tries to start it, I expect it to wait, and to say for what
    workers.run(workers.another())
    wait_for(lambda: "cannot decrypt" in Job.objects.get(pk=job.pk).doing, 20, "the reason to be stored")
    assert Job.objects.get(pk=job.pk).status == State.ACCEPTED

    # And to run as soon as the worker has the key
    use_keys(settings, key, NEW)
    assert completed(job).status == State.COMPLETED
    assert stored_log(job) == ["secret", "content"]
    wait_until_removed(engine)
