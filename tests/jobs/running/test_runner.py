"""The steps of one job on the fake engine: whatever fails between them, a job ends once and as it should."""

import itertools
import threading
from dataclasses import replace
from typing import Any

import pytest
from django.db import InternalError, OperationalError

from callbacks.models import Event
from jobs import lifecycle, services
from jobs.engine.protocol import Observation
from jobs.errors import ContainerNotFound, EngineUnavailable, Interrupted, OwnershipLost, StartLost
from jobs.maintenance.dead_workers import sign_off
from jobs.models import Job, LogChunk, Node
from jobs.spec import InputSpec, OutputSpec
from jobs.states import InputType, OutputType, Reason, State
from tests.fake_engine import FakeEngine, FakeImage
from tests.helpers.engines import tar_of
from tests.helpers.factories import make_job
from tests.helpers.receiver import Receiver
from tests.helpers.waiting import wait_for
from tests.helpers.workers import QUICK, Workers, completed, running

pytestmark = pytest.mark.django_db(transaction=True)


def told(job: Job) -> list[str]:
    rows = Event.objects.filter(subscription__stream=job.uuid).order_by("sequence").values_list("type", flat=True)
    return [type_.removeprefix("orchestrator.job.") for type_ in rows]


def log_of(job: Job) -> list[str]:
    return [text for chunk in LogChunk.objects.filter(job=job) for _, _, text in chunk.lines]


def wait_until_nothing_is_left(engine: FakeEngine) -> None:
    """A job is complete before its container is removed."""
    wait_for(lambda: not engine.list({}), 10, "the containers to be removed")
    node = Node.objects.get()
    assert (node.cpu_millis_reserved, node.memory_mib_reserved) == (0, 0)


def a_file(name: str, content: bytes) -> InputSpec:
    return InputSpec(id=name, type=InputType.FILE, path=name, content=content)


def test_a_job_from_nothing_to_its_end(engine: FakeEngine, workers: Workers) -> None:
    # Given
    job = make_job(
        command="cat in; cp in out",
        inputs=(a_file("in", b"hello\n"),),
        outputs=(OutputSpec(id="out", type=OutputType.EVENT, path="out"),),
    )

    # When
    workers.another().run_jobs()

    # I expect
    job = completed(job)
    assert (job.status, job.exit_code, job.node.name if job.node else None) == (State.COMPLETED, 0, "node")
    assert told(job) == ["input", "start", "log", "exit", "output", "complete"]
    assert log_of(job) == ["hello"]
    wait_until_nothing_is_left(engine)


STEPS = ["ensure_image", "create", "resolve_user", "start", "inspect", "logs", "put", "stat", "get", "remove"]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_an_engine_that_hiccups_at_any_step_changes_nothing(engine: FakeEngine, workers: Workers, step: str, after: bool) -> None:
    # Given a job that uses every call, and an engine that fails once before or after the call's effect
    job = make_job(
        command="echo ran >> /dev/stdout; cp in out; exit 4",
        inputs=(a_file("in", b"x"),),
        outputs=(OutputSpec(id="out", type=OutputType.EVENT, path="out"),),
    )
    engine.fail_next(step, EngineUnavailable("a hiccup"), after=after)

    # When
    workers.another().run_jobs()

    # I expect the same story, and that it ran once
    job = completed(job)
    assert (job.status, job.reason, job.exit_code) == (State.FAILED, Reason.EXIT_CODE, 4)
    assert told(job) == ["input", "start", "log", "exit", "output", "complete"]
    assert log_of(job) == ["ran"]
    remove_all(engine)
    wait_until_nothing_is_left(engine)


def remove_all(engine: FakeEngine) -> None:
    """What the sweep does a while later, when a removal has failed."""
    for seen in engine.list({}):
        assert Job.objects.get().completed_at is not None
        engine.remove(seen.name, force=True)


@pytest.mark.parametrize(
    "crash",
    ["report_progress", "input_done", "started", "decide", "exited", "output_done", "completed"],
)
@pytest.mark.parametrize("committed", [False, True], ids=["before its commit", "after its commit"])
def test_a_worker_killed_around_any_commit_is_taken_over(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch, crash: str, committed: bool
) -> None:
    # Given a worker that dies around this commit
    job = make_job(
        command="echo ran; cp in out",
        inputs=(a_file("in", b"x"),),
        outputs=(OutputSpec(id="out", type=OutputType.EVENT, path="out"),),
    )
    first = workers.another()
    commit = getattr(lifecycle, crash)

    def die(*args: Any, **kwargs: Any) -> None:
        if committed:
            commit(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(lifecycle, crash, die)
    with pytest.raises(Killed):
        first.run_jobs()
    monkeypatch.undo()

    # When its death is noticed and another worker of the node goes on
    sign_off(first._heartbeat.worker_id)
    workers.another().run_jobs()

    # I expect the same story as without the crash, and the container to have run once
    job = completed(job)
    assert (job.status, job.exit_code) == (State.COMPLETED, 0)
    assert told(job) == ["input", "start", "log", "exit", "output", "complete"]
    assert log_of(job) == ["ran"]
    remove_all(engine)
    wait_until_nothing_is_left(engine)


class Killed(BaseException):
    """No handler of the product catches it: as if the process were gone."""


def test_an_output_that_was_sent_is_not_sent_again(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a worker that dies once it has sent the first of two files
    with Receiver() as receiver:
        job = make_job(
            command="echo 1 > a; echo 2 > b",
            outputs=tuple(OutputSpec(id=name, type=OutputType.UPLOAD, path=name, url=f"{receiver.url}/{name}") for name in "ab"),
        )
        first = workers.another()
        commit = lifecycle.output_done
        died = threading.Event()

        def die(*args: Any, **kwargs: Any) -> None:
            commit(*args, **kwargs)
            died.set()
            raise Killed

        monkeypatch.setattr(lifecycle, "output_done", die)
        first.run_jobs()
        assert died.wait(10)
        monkeypatch.undo()

        # When another worker goes on
        sign_off(first._heartbeat.worker_id)
        workers.another().run_jobs()

        # I expect each file to have been sent once
        completed(job)
        assert [request.body for request in receiver.requests] == [b"1\n", b"2\n"]


def test_a_running_job_is_handed_over_with_its_container(engine: FakeEngine, workers: Workers) -> None:
    # Given a job that runs until it is told
    job = make_job(command="echo begun; while [ ! -e go ]; do sleep 0.02; done; echo done")
    first = workers.another()
    thread = workers.run(first)
    running(job)
    wait_for(lambda: log_of(job) == ["begun"], 10, "its first line")

    # When its worker is stopped and another one goes on
    first.stop()
    thread.join(10)
    (before,) = engine.list({})
    second = workers.another()
    workers.run(second)
    wait_for(lambda: [seen.name for seen in engine.list({})] != [before.name], 10, "the container to be renamed")
    put_go(engine)

    # I expect the very same process to have ended, every line once
    job = completed(job)
    assert job.status == State.COMPLETED
    assert log_of(job) == ["begun", "done"]
    assert told(job) == ["start", "log", "log", "exit", "complete"]


def put_go(engine: FakeEngine) -> None:
    (seen,) = engine.list({})
    engine.put(seen.name, "/workspace", [tar_of("go", b"")])


def test_a_rename_of_a_dead_owner_that_comes_late_loses_no_container(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a running job, and a second owner that died while the engine, slow as it was, had yet to rename the container
    job = make_job(command="while [ ! -e go ]; do sleep 0.02; done; exit 3")
    first = workers.another()
    workers.run(first)
    running(job)
    first.stop()
    Job.objects.filter(pk=job.pk).update(claims=2)
    listing = engine.list

    def list_then_rename(labels: dict[str, str]) -> list[Observation]:
        seen = listing(labels)
        monkeypatch.setattr(engine, "list", listing)
        engine.rename(seen[0].name, f"{seen[0].name.removesuffix('-1')}-2")
        return seen

    # When the engine gets to it between the third owner's look and its rename
    monkeypatch.setattr(engine, "list", list_then_rename)
    workers.run(workers.another())
    wait_for(lambda: listing({})[0].name.endswith("-3"), 10, "the container to be the third owner's")
    put_go(engine)

    # I expect the process to have been found all the same
    job = completed(job)
    assert (job.reason, job.exit_code, job.claims) == (Reason.EXIT_CODE, 3, 3)


def test_a_worker_that_comes_back_from_the_dead_does_nothing_more(engine: FakeEngine, workers: Workers) -> None:
    # Given a running job whose worker is declared dead while it lives
    job = make_job(command="while [ ! -e go ]; do sleep 0.02; done; echo done")
    first = workers.another()
    thread = workers.run(first)
    running(job)
    sign_off(first._heartbeat.worker_id)

    # When another takes over and the process ends
    workers.run(workers.another())
    wait_for(lambda: Job.objects.get(pk=job.pk).claims == 2, 10, "the second claim")
    wait_for(lambda: engine.list({})[0].name.endswith("-2"), 10, "the container to be renamed")
    put_go(engine)

    # I expect one story, and the first worker's thread to be free
    job = completed(job)
    assert told(job) == ["start", "log", "exit", "complete"]
    thread.join(10)
    assert not thread.is_alive()


def test_a_worker_that_wakes_up_after_another_took_its_container_reports_no_error(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a container that is renamed between its start and the look at it
    job = make_job(command="echo ran")
    start = engine.start

    def start_and_lose(name: str) -> None:
        start(name)
        engine.fail_next("inspect", ContainerNotFound("renamed"))

    monkeypatch.setattr(engine, "start", start_and_lose)

    # When
    workers.another().run_jobs()

    # I expect the job to go on from what is found, and nobody to be called
    job = completed(job)
    assert (job.status, log_of(job)) == (State.COMPLETED, ["ran"])
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_start_of_which_the_engine_lost_the_trace_is_engine_lost(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an engine that was killed in the middle of the start
    job = make_job(command="echo ran")

    def start(name: str) -> None:
        raise StartLost("it may have run")

    monkeypatch.setattr(engine, "start", start)

    # When
    workers.another().run_jobs()

    # I expect it not to be run a second time
    job = completed(job)
    assert (job.status, job.reason, job.exit_code, job.error) == (State.FAILED, Reason.ENGINE_LOST, -1, "it may have run")
    assert told(job) == ["exit", "complete"]
    wait_until_nothing_is_left(engine)


@pytest.mark.parametrize(("command", "reason", "code"), [("exit 5", Reason.EXIT_CODE, 5), ("exec sleep 60", Reason.TIMEOUT, 143)])
def test_a_process_whose_start_the_engine_has_not_noted_ends_as_any_other(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch, command: str, reason: Reason, code: int
) -> None:
    # Given an engine that was killed in the middle of the start, and found the process when it was back
    job = make_job(command=command, timeout_seconds=1)
    start, inspect = engine.start, engine.inspect

    def start_and_die(name: str) -> None:
        start(name)
        raise EngineUnavailable("killed")

    monkeypatch.setattr(engine, "start", start_and_die)
    monkeypatch.setattr(engine, "inspect", lambda name: replace(inspect(name), started_at=None))

    # When
    workers.another().run_jobs()

    # I expect
    job = completed(job)
    assert (job.reason, job.exit_code) == (reason, code)
    assert job.started_at is not None
    wait_until_nothing_is_left(engine)


def test_a_time_out_ends_the_process_with_its_reason(engine: FakeEngine, workers: Workers) -> None:
    job = make_job(command="echo begun; exec sleep 60", timeout_seconds=1)
    workers.another().run_jobs()

    job = completed(job)
    assert (job.status, job.reason, job.exit_code) == (State.FAILED, Reason.TIMEOUT, 143)
    assert told(job) == ["start", "log", "exit", "complete"]
    wait_until_nothing_is_left(engine)


@pytest.mark.parametrize("identity", ["customer-42", ""])
def test_a_container_is_not_named_after_its_job(engine: FakeEngine, workers: Workers, identity: str) -> None:
    # Given a running job, whose container's name other jobs can learn by DNS
    job = make_job(id=identity, command="exec sleep 60")
    workers.run(workers.another())
    running(job)

    # I expect nothing in it that means anything to the API
    (container,) = engine.list({})
    assert job.id not in container.name
    services.cancel(job.id)
    completed(job)


def test_every_process_of_a_job_can_use_the_time_after_its_time_out(workers: Workers) -> None:
    # Given a program that saves what it has on SIGTERM, and a shell that waits for it
    program = "trap 'echo partial > out; exit 0' TERM; sleep 60 & wait"
    out = OutputSpec(id="out", type=OutputType.EVENT, path="out")
    job = make_job(command=f'sh -c "{program}"; echo after', timeout_seconds=1, outputs=(out,))

    # When
    workers.another().run_jobs()

    # I expect the file that it wrote, and the exit code of the shell
    job = completed(job)
    assert (job.reason, job.exit_code) == (Reason.TIMEOUT, 143)
    assert job.outputs.get().status == "success"


def test_an_image_for_another_architecture_is_named_in_the_error(engine: FakeEngine, workers: Workers) -> None:
    engine.images["test/arm:latest"] = FakeImage(architecture="arm64")
    program = InputSpec(id="in", type=InputType.FILE, path="program", content=b"\x7fELF" + bytes(60), mode=0o755)
    job = make_job(image="test/arm:latest", command=["./program"], inputs=(program,))
    workers.another().run_jobs()

    job = completed(job)
    assert (job.status, job.reason, job.exit_code) == (State.FAILED, Reason.EXIT_CODE, 126)
    assert job.error == "exit code 126: image is for arm64, node is amd64"


def test_a_process_that_ignores_the_stop_is_killed(workers: Workers) -> None:
    job = make_job(command="trap '' TERM; while true; do sleep 0.05; done", timeout_seconds=1)
    workers.another().run_jobs()

    job = completed(job)
    assert (job.reason, job.exit_code) == (Reason.TIMEOUT, 137)


def test_a_running_job_is_cancelled(engine: FakeEngine, workers: Workers) -> None:
    # Given
    job = make_job(command="exec sleep 60", outputs=(OutputSpec(id="out", type=OutputType.EVENT, path="out"),))
    workers.run(workers.another())
    running(job)

    # When
    services.cancel(job.id)

    # I expect
    job = completed(job)
    assert (job.status, job.exit_code) == (State.CANCELLED, 143)
    assert told(job) == ["start", "exit", "complete"]
    assert job.outputs.get().status == "skipped"
    wait_until_nothing_is_left(engine)


def test_a_job_that_is_cancelled_just_as_it_starts_is_asked_to_end(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job that is cancelled when its process runs and before that is committed
    job = make_job(command="exec sleep 60")
    start, stopped = lifecycle.started, []

    def cancel_first(*args: Any) -> None:
        services.cancel(job.id)
        start(*args)

    def stop(name: str, grace: float) -> None:
        FakeEngine.stop(engine, name, grace)
        stopped.append(engine.inspect(name).exit_code)

    monkeypatch.setattr(lifecycle, "started", cancel_first)
    monkeypatch.setattr(engine, "stop", stop)
    workers.another().run_jobs()

    # I expect SIGTERM to have ended it, and it to count as never started
    assert stopped == [143]
    job = completed(job)
    assert (job.status, job.started_at) == (State.CANCELLED, None)
    assert told(job) == ["exit", "complete"]
    wait_until_nothing_is_left(engine)


def test_a_job_is_cancelled_while_its_image_is_pulled(engine: FakeEngine, workers: Workers) -> None:
    # Given a pull that takes for ever
    engine.registry["slow:latest"] = engine.images["alpine:latest"]
    engine.pulls_allowed.clear()
    job = make_job(image="slow")
    workers.run(workers.another())
    wait_for(lambda: engine.pulls_begun, 10, "the pull")
    assert Job.objects.get().doing == "pulling slow"

    # When
    services.cancel(job.id)

    # I expect
    job = completed(job)
    assert (job.status, job.exit_code) == (State.CANCELLED, -1)
    assert told(job) == ["exit", "complete"]
    engine.pulls_allowed.set()


def test_an_image_that_is_not_there_ends_the_job(engine: FakeEngine, workers: Workers) -> None:
    job = make_job(image="nowhere/nothing:1")
    workers.another().run_jobs()

    job = completed(job)
    assert (job.status, job.reason, job.exit_code) == (State.FAILED, Reason.IMAGE_PULL, -1)
    assert told(job) == ["exit", "complete"]
    wait_until_nothing_is_left(engine)


def test_a_container_that_vanished_is_engine_lost(engine: FakeEngine, workers: Workers) -> None:
    # Given a running job whose container somebody removes
    job = make_job(command="exec sleep 60", outputs=(OutputSpec(id="out", type=OutputType.EVENT, path="out"),))
    workers.run(workers.another())
    running(job)
    engine.remove(engine.list({})[0].name, force=True)

    # I expect
    job = completed(job)
    assert (job.status, job.reason, job.exit_code) == (State.FAILED, Reason.ENGINE_LOST, -1)
    assert told(job) == ["start", "exit", "output", "complete"]
    wait_until_nothing_is_left(engine)


@pytest.mark.parametrize("program", ["exec sleep 60", "trap 'exit 0' TERM; sleep 60 & wait"])
def test_a_process_that_a_restart_of_its_engine_ended_is_engine_lost(engine: FakeEngine, workers: Workers, program: str) -> None:
    # Given a running job
    job = make_job(command=f"echo begun; {program}", outputs=(OutputSpec(id="out", type=OutputType.EVENT, path="out"),))
    workers.run(workers.another())
    wait_for(lambda: log_of(job), 20, "its first line")

    # When its engine is stopped and started again
    engine.restart()

    # I expect no exit code, whatever its own was, and else what becomes of any process that ended
    job = completed(job)
    assert (job.status, job.reason, job.exit_code) == (State.FAILED, Reason.ENGINE_LOST, -1)
    assert "restarted" in job.error
    assert job.finished_at is not None
    assert log_of(job) == ["begun"]
    assert told(job) == ["start", "log", "exit", "output", "complete"]
    wait_until_nothing_is_left(engine)


def test_a_job_that_starts_after_a_restart_of_its_engine_ends_as_any_other(engine: FakeEngine, workers: Workers) -> None:
    # Given
    engine.restart()
    job = make_job(command="exit 5")

    # When
    workers.another().run_jobs()

    # I expect
    job = completed(job)
    assert (job.reason, job.exit_code) == (Reason.EXIT_CODE, 5)


def test_an_engine_that_is_away_for_a_while_is_no_dead_job(
    engine: FakeEngine, workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a running job
    job = make_job(command="while [ ! -e go ]; do sleep 0.02; done; exit 5")
    workers.run(workers.another())
    running(job)

    # When its engine stops answering and comes back
    engine.unavailable = True
    wait_for(lambda: "trying again" in caplog.text, 10, "the run to notice")
    assert Job.objects.get().status == State.RUNNING
    engine.unavailable = False
    put_go(engine)

    # I expect
    assert completed(job).exit_code == 5


def test_a_job_whose_time_is_up_while_its_engine_is_away_keeps_nobody_busy(engine: FakeEngine, workers: Workers) -> None:
    # Given a running job on an engine that stops answering
    job = make_job(command="exec sleep 60", timeout_seconds=1)
    supervisor = workers.another()
    workers.run(supervisor)
    running(job)
    (run,) = supervisor._runs.snapshot()
    engine.unavailable = True

    # When its time is up
    wait_for(lambda: run.overdue, 10, "the time-out")

    # I expect the supervisor to look at its usual pace
    assert supervisor._seconds_to_next_tick() == QUICK.worker.tick

    # And the job to end as it should once the engine is back
    engine.unavailable = False
    assert completed(job).reason == Reason.TIMEOUT


READ_ONLY = InternalError("cannot execute UPDATE in a read-only transaction")


def fail_to_decide(monkeypatch: pytest.MonkeyPatch, *failures: Exception) -> None:
    """The database fails with these, one after the other, when a decision is to be committed."""
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
def test_a_database_that_fails_for_a_while_repeats_nothing(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, failures: list[Exception]
) -> None:
    # Given a database that does not answer as it should when the decision is to be committed
    job = make_job(command="echo ran; exit 6")
    fail_to_decide(monkeypatch, *failures)

    # When
    workers.another().run_jobs()

    # I expect the decision to be the same

    job = completed(job)
    assert job.exit_code == 6
    assert told(job) == ["start", "log", "exit", "complete"]


def test_an_error_that_nobody_foresaw_ends_the_job_too(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a bug in the way a container is described, found after however long a pull
    job = make_job()
    monkeypatch.setattr("jobs.running.claimed_container.ClaimedContainer._spec", lambda *_: 1 / 0)
    workers.set_intervals(run={"retries": (0.01,), "stable": 0.0})
    workers.run(workers.another())

    # I expect the job to end and to say so
    job = completed(job)
    assert (job.status, job.reason) == (State.FAILED, Reason.START_FAILED)
    assert "internal error" in job.error
    assert told(job) == ["exit", "complete"]


def test_a_job_is_given_up_once_the_database_takes_that(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a bug in the way a container is described, and a database that takes no writes for a moment
    job = make_job()
    monkeypatch.setattr("jobs.running.claimed_container.ClaimedContainer._spec", lambda *_: 1 / 0)
    workers.set_intervals(run={"retries": (0.01,)})
    fail_to_decide(monkeypatch, READ_ONLY)

    # When
    workers.another().run_jobs()

    # I expect
    assert completed(job).reason == Reason.START_FAILED


@pytest.mark.parametrize(
    ("stable_after", "reason"),
    [pytest.param(60.0, Reason.ENGINE_LOST, id="in a row"), pytest.param(0.0, Reason.EXIT_CODE, id="far apart")],
)
def test_errors_that_nobody_foresaw_end_a_running_job_where_they_come_in_a_row(
    engine: FakeEngine,
    workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    stable_after: float,
    reason: Reason,
) -> None:
    # Given a job whose log cannot be followed five times, and what time without an error is enough
    workers.set_intervals(run={"retries": (0.01,), "stable": stable_after})
    for _ in range(5):
        engine.fail_next("logs", KeyError("ID"))
    job = make_job(command="while [ ! -e go ]; do sleep 0.02; done; exit 5")

    # When it runs
    workers.run(workers.another())
    wait_for(lambda: unexpected_errors(caplog) == 5, 10, "the errors")
    if reason == Reason.EXIT_CODE:
        put_go(engine)

    # I expect
    assert completed(job).reason == reason


@pytest.mark.parametrize("between", [Interrupted("woken"), OwnershipLost("read it again")])
def test_errors_with_something_foreseen_between_them_are_not_in_a_row(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, between: Exception
) -> None:
    # Given a job whose log cannot be followed eight times, and half-way a look at its row that found all well
    workers.set_intervals(run={"retries": (0.01,)})
    for failure in [KeyError("ID")] * 4 + [between] + [KeyError("ID")] * 4:
        engine.fail_next("logs", failure)
    job = make_job(command="while [ ! -e go ]; do sleep 0.02; done; exit 5")

    # When it runs
    workers.run(workers.another())
    wait_for(lambda: unexpected_errors(caplog) == 8, 10, "the errors")
    put_go(engine)

    # I expect it to end as it should
    assert completed(job).exit_code == 5


def unexpected_errors(caplog: pytest.LogCaptureFixture) -> int:
    return caplog.text.count("an unexpected error in a run")


def test_the_stored_log_ends_at_its_limit_with_a_marker(workers: Workers) -> None:
    # Given a job that prints 3,000 bytes, of which 1,000 are to be stored
    job = make_job(command="for i in $(seq 300); do echo 123456789; done")
    workers.another(log_limit=1000).run_jobs()

    # I expect the first 100 lines and a marker, and all of them to have been told
    job = completed(job)
    lines = log_of(job)
    assert lines[:100] == ["123456789"] * 100
    assert len(lines) == 101
    assert "1000 bytes" in lines[100]
    assert job.log_full
    events = Event.objects.filter(type="orchestrator.job.log")
    assert sum(bytes(event.body).count(b"123456789") for event in events) == 300


def test_a_log_that_nobody_wants_is_read_no_further(engine: FakeEngine, workers: Workers) -> None:
    # Given a job without a callback whose log is full, and which goes on printing
    job = make_job(command="seq 1000; while [ ! -e go ]; do sleep 0.02; done; seq 1000", callback=None)
    workers.run(workers.another(log_limit=100))
    wait_for(lambda: Job.objects.get().log_full, 10, "the limit")
    put_go(engine)

    # I expect it to end, with the marker as its last line
    job = completed(job)
    assert job.status == State.COMPLETED
    assert "100 bytes" in log_of(job)[-1]


def test_jobs_wait_for_room_and_start_as_soon_as_there_is_some(engine: FakeEngine, workers: Workers) -> None:
    # Given a node with room for one of three
    jobs = [make_job(memory_mib=600) for _ in range(3)]

    # When one thread works
    workers.another(node_memory=1024**3).run_jobs()

    # I expect all to have run, one after the other
    ended = [completed(job) for job in jobs]
    times = [(job.started_at, job.finished_at) for job in ended]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(times) if before[1] and after[0])
    wait_until_nothing_is_left(engine)


def test_a_network_that_somebody_removed_is_made_anew(engine: FakeEngine, workers: Workers) -> None:
    # Given an idle worker whose network was pruned
    supervisor = workers.another()
    removed = supervisor.node.network_id
    engine.remove_network(removed)

    # When it takes two jobs
    jobs = [make_job(), make_job()]
    supervisor.run_jobs()

    # I expect both to run on one new network, which the node's row names
    assert [completed(job).status for job in jobs] == [State.COMPLETED] * 2
    (network,) = engine.list_networks({})
    assert network != removed
    assert Node.objects.get().network_id == network


def test_a_busy_process_calls_no_thread_that_it_has_not(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a process of one thread that has a job
    called: list[str] = []
    ticks: list[int] = []
    monkeypatch.setattr("jobs.worker.supervisor.hint", lambda queue, *_: not called.append(queue))
    monkeypatch.setattr("jobs.worker.supervisor.DeadWorkerDetector.check", lambda _: ticks.append(1))
    job = make_job(command="exec sleep 60")
    thread = workers.run(workers.another(worker_threads=1))
    running(job)

    # When another one waits and the supervisor looks around
    called.clear()
    ticks.clear()
    waiting = make_job()
    wait_for(lambda: len(ticks) > 2, 10, "the supervisor to look")

    # I expect nobody to be called for it: the same thread takes it next
    assert called == []
    services.cancel(job.id)
    thread.join(10)
    assert completed(waiting).status == State.COMPLETED
