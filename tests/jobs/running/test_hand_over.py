"""How a job continues under another owner, on the fake engine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pytest

from jobs import lifecycle, services
from jobs.engine.protocol import Frames, Observation
from jobs.errors import ContainerNotFound
from jobs.maintenance.dead_workers import sign_off
from jobs.models import Job
from jobs.spec import OutputSpec
from jobs.states import OutputType, Reason, State
from tests.fake_engine import FakeEngine
from tests.helpers.factories import make_job
from tests.helpers.job_checks import create_go_file, event_types, stored_log
from tests.helpers.kills import Killed
from tests.helpers.receiver import Receiver
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed, running

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_uploaded_output_is_not_uploaded_again(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a worker that dies after it has uploaded the first of two files
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

        # When another worker continues
        sign_off(first._heartbeat.worker_id)
        workers.another().run_jobs()

        # I expect each file to have been uploaded once
        completed(job)
        assert [request.body for request in receiver.requests] == [b"1\n", b"2\n"]


def test_a_running_job_is_handed_over_with_its_container(engine: FakeEngine, workers: Workers) -> None:
    # Given a job that runs until a file exists
    job = make_job(command="echo begun; while [ ! -e go ]; do sleep 0.02; done; echo done")
    first = workers.another()
    thread = workers.run(first)
    running(job)
    wait_for(lambda: stored_log(job) == ["begun"], 10, "its first line")

    # When its worker is stopped and another one continues
    first.stop()
    thread.join(10)
    (before,) = engine.list({})
    second = workers.another()
    workers.run(second)
    wait_for(lambda: [seen.name for seen in engine.list({})] != [before.name], 10, "the container to be renamed")
    create_go_file(engine)

    # I expect the same process to have ended, and each line once
    job = completed(job)
    assert job.status == State.COMPLETED
    assert stored_log(job) == ["begun", "done"]
    assert event_types(job) == ["start", "log", "log", "exit", "complete"]


def test_a_log_that_ended_too_early_is_not_stored_twice(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a followed log that ends although its process runs on, and that is followed again
    workers.set_intervals(log={"exit_check": 0.01})
    open_log, opened = engine.logs, 0

    @contextmanager
    def ending_early(name: str, **options: Any) -> Iterator[Iterator[Frames | None]]:
        nonlocal opened
        opened += options["follow"]
        with open_log(name, **options) as frames:
            yield frames if opened != 1 else islice((some for some in frames if some), 1)

    monkeypatch.setattr(engine, "logs", ending_early)
    job = make_job(command="echo first; while [ ! -e go ]; do sleep 0.02; done; echo second; exec sleep 60")
    workers.run(workers.another())
    wait_for(lambda: stored_log(job) == ["first"], 20, "its first line")
    create_go_file(engine)

    # When the job is cancelled after a further line
    wait_for(lambda: opened > 1, 20, "the log to be followed again")
    wait_for(lambda: stored_log(job) == ["first", "second"], 20, "its second line")
    services.cancel(job.id)

    # I expect each line once
    assert stored_log(completed(job)) == ["first", "second"]


def test_a_late_rename_loses_no_container(engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a running job, and a second owner that died while a slow engine had not yet renamed the container for it
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

    # When the engine does so after the third owner has listed the containers
    monkeypatch.setattr(engine, "list", list_then_rename)
    workers.run(workers.another())
    wait_for(lambda: listing({})[0].name.endswith("-3"), 10, "the container to be the third owner's")
    create_go_file(engine)

    # I expect the third owner to find the process all the same
    job = completed(job)
    assert (job.reason, job.exit_code, job.claims) == (Reason.EXIT_CODE, 3, 3)


def test_a_worker_declared_dead_does_nothing_more(engine: FakeEngine, workers: Workers) -> None:
    # Given a running job whose worker loses its jobs although it is alive
    job = make_job(command="while [ ! -e go ]; do sleep 0.02; done; echo done")
    first = workers.another()
    thread = workers.run(first)
    running(job)
    sign_off(first._heartbeat.worker_id)

    # When another worker takes over and the process ends
    workers.run(workers.another())
    wait_for(lambda: Job.objects.get(pk=job.pk).claims == 2, 10, "the second claim")
    wait_for(lambda: engine.list({})[0].name.endswith("-2"), 10, "the container to be renamed")
    create_go_file(engine)

    # I expect each event once, and the first worker's thread to be free
    job = completed(job)
    assert event_types(job) == ["start", "log", "exit", "complete"]
    thread.join(10)
    assert not thread.is_alive()


def test_a_container_renamed_after_its_start_is_no_error(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a container that is renamed between its start and its inspection
    job = make_job(command="echo ran")
    start = engine.start

    def start_and_lose(name: str, **options: Any) -> None:
        start(name, **options)
        engine.fail_next("inspect", ContainerNotFound("renamed"))

    monkeypatch.setattr(engine, "start", start_and_lose)

    # When
    workers.another().run_jobs()

    # I expect the job to continue, and no error in the log
    job = completed(job)
    assert (job.status, stored_log(job)) == (State.COMPLETED, ["ran"])
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
