"""The steps of one job, on the fake engine."""

import itertools
from typing import Any

import pytest

from callbacks.models import Event
from jobs import services
from jobs.models import Job
from jobs.running.container_labels import INSTANCE_LABEL, NODE_LABEL, SANDBOX_LABEL, UUID_LABEL
from jobs.spec import InputSpec, OutputSpec
from jobs.states import InputType, OutputType, Reason, State
from tests.fake_engine import FakeEngine, FakeImage
from tests.helpers.factories import make_job
from tests.helpers.job_checks import create_go_file, event_types, file_input, stored_log, wait_until_removed
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed, running

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_job_runs_to_its_end(engine: FakeEngine, workers: Workers) -> None:
    # Given
    job = make_job(
        command="cat in; cp in out",
        inputs=(file_input("in", b"hello\n"),),
        outputs=(OutputSpec(id="out", type=OutputType.EVENT, path="out"),),
    )

    # When
    workers.another().run_jobs()

    # I expect
    job = completed(job)
    assert (job.status, job.exit_code, job.node.name if job.node else None) == (State.COMPLETED, 0, "node")
    assert event_types(job) == ["input", "start", "log", "exit", "output", "complete"]
    assert stored_log(job) == ["hello"]
    wait_until_removed(engine)


def test_a_time_out_ends_the_process(engine: FakeEngine, workers: Workers) -> None:
    job = make_job(command="echo begun; exec sleep 60", timeout_seconds=1)
    workers.another().run_jobs()

    job = completed(job)
    assert (job.status, job.reason, job.exit_code) == (State.FAILED, Reason.TIMEOUT, 143)
    assert event_types(job) == ["start", "log", "exit", "complete"]
    wait_until_removed(engine)


@pytest.mark.parametrize("identity", ["customer-42", ""])
def test_a_container_is_not_named_after_its_job(engine: FakeEngine, workers: Workers, identity: str) -> None:
    # Given a running job, whose container's name other jobs can learn through DNS
    job = make_job(id=identity, command="exec sleep 60")
    workers.run(workers.another())
    running(job)

    # I expect the job's id not to be part of it
    (container,) = engine.list({})
    assert job.id not in container.name

    # And to have all labels by which the service finds containers, so that none of its image's takes their place
    assert set(container.labels) == {INSTANCE_LABEL, NODE_LABEL, SANDBOX_LABEL, UUID_LABEL}
    services.cancel(job.id)
    completed(job)


def test_processes_can_finish_within_the_stop_grace(workers: Workers) -> None:
    # Given a program that saves its results on SIGTERM, and a shell that waits for it
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
    workers.another(shutdown_grace=0.3).run_jobs()

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
    assert event_types(job) == ["start", "exit", "complete"]
    assert job.outputs.get().status == "skipped"
    wait_until_removed(engine)


def test_a_job_cancelled_during_its_start_gets_sigterm(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job that is cancelled after its process has started and before that is committed
    job = make_job(command="exec sleep 60")
    stopped = []

    def start(name: str, **options: Any) -> None:
        FakeEngine.start(engine, name, **options)
        services.cancel(job.id)

    def stop(name: str, grace: float) -> None:
        FakeEngine.stop(engine, name, grace)
        stopped.append(engine.inspect(name).exit_code)

    monkeypatch.setattr(engine, "start", start)
    monkeypatch.setattr(engine, "stop", stop)
    workers.another().run_jobs()

    # I expect SIGTERM to have ended it, and the job to count as never started
    assert stopped == [143]
    job = completed(job)
    assert (job.status, job.started_at) == (State.CANCELLED, None)
    assert event_types(job) == ["exit", "complete"]
    wait_until_removed(engine)


def test_a_job_is_cancelled_during_its_pull(engine: FakeEngine, workers: Workers) -> None:
    # Given a pull that does not end
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
    assert event_types(job) == ["exit", "complete"]
    engine.pulls_allowed.set()


def test_a_missing_image_fails_the_job(engine: FakeEngine, workers: Workers) -> None:
    job = make_job(image="nowhere/nothing:1")
    workers.another().run_jobs()

    job = completed(job)
    assert (job.status, job.reason, job.exit_code) == (State.FAILED, Reason.IMAGE_PULL, -1)
    assert event_types(job) == ["exit", "complete"]
    wait_until_removed(engine)


def test_the_stored_log_ends_at_its_limit_with_a_marker(workers: Workers) -> None:
    # Given a job that prints 3,000 bytes, and a limit of 1,000
    job = make_job(command="for i in $(seq 300); do echo 123456789; done")
    workers.another(log_limit=1000).run_jobs()

    # I expect the first 100 lines and a marker to be stored, and all lines to be in events
    job = completed(job)
    lines = stored_log(job)
    assert lines[:100] == ["123456789"] * 100
    assert len(lines) == 101
    assert "1000 bytes" in lines[100]
    assert job.log_full
    events = Event.objects.filter(type="orchestrator.job.log")
    assert sum(bytes(event.body).count(b"123456789") for event in events) == 300


def test_a_full_log_without_a_callback_is_read_no_further(engine: FakeEngine, workers: Workers) -> None:
    # Given a job without a callback whose stored log is full, and which continues to print
    job = make_job(command="seq 1000; while [ ! -e go ]; do sleep 0.02; done; seq 1000", callback=None)
    workers.run(workers.another(log_limit=100))
    wait_for(lambda: Job.objects.get().log_full, 10, "the limit")
    create_go_file(engine)

    # I expect it to end, with the marker as its last line
    job = completed(job)
    assert job.status == State.COMPLETED
    assert "100 bytes" in stored_log(job)[-1]


def test_jobs_wait_for_capacity(engine: FakeEngine, workers: Workers) -> None:
    # Given a node that can hold one of three jobs at a time
    jobs = [make_job(memory_mib=600) for _ in range(3)]

    # When one thread runs them
    workers.another(node_memory=1024**3).run_jobs()

    # I expect all to have run, one after the other
    ended = [completed(job) for job in jobs]
    times = [(job.started_at, job.finished_at) for job in ended]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(times) if before[1] and after[0])
    wait_until_removed(engine)
