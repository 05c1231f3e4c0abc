"""Jobs on the fake engine that write too much."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError

from jobs import lifecycle, services
from jobs.engine.protocol import DiskSpace, DiskUse
from jobs.errors import EngineUnavailable, Unmeasurable
from jobs.models import Job
from jobs.spec import OutputSpec
from jobs.states import OutputType, Reason, State
from tests.fake_engine import FakeEngine
from tests.helpers.factories import make_job
from tests.helpers.job_checks import create_go_file, event_types, file_input, stored_log, wait_until_removed
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed, running

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.stateless]

MIB = 1024**2
LIMIT = 8 * MIB
IGNORES_SIGTERM = "trap '' TERM; "
WRITES = "head -c 10000000 /dev/zero > big; "
WAITS = "while [ ! -e go ]; do sleep 0.02; done; "
STAYS = "while true; do sleep 0.02; done"
SIZE = 100 * 1024**3


@pytest.fixture(autouse=True)
def quick(workers: Workers) -> None:
    workers.set_intervals(disk={"look": 0.02, "retry": 0.02, "unheeded": 0.2})


def see(engine: FakeEngine, used: int, *, files: int = 0, files_used: int = 0) -> None:
    """Let the engine's disk look like this."""
    engine.disk = DiskSpace(size=SIZE, used=used, free=SIZE - used, files=files, files_used=files_used)


def write_too_much(engine: FakeEngine) -> None:
    """Let the only job, which waits for it, write its file."""
    create_go_file(engine)
    (container,) = engine.list({})
    wait_for(lambda: engine.disk_use(container.name).size > LIMIT, 10, "the file")


def sizes(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, size: Callable[[str], int], files: int = 1) -> list[str]:
    """Let containers have written this much, and return the list of those that are measured."""
    looks: list[str] = []

    def disk_use(name: str, *, count_files: bool = False) -> DiskUse:
        looks.append(name)
        return DiskUse(size(name), files if count_files else None)

    monkeypatch.setattr(engine, "disk_use", disk_use)
    return looks


@pytest.mark.parametrize("is_seen", [True, False], ids=["space", "no space"])
def test_a_job_that_writes_too_much_is_killed(engine: FakeEngine, workers: Workers, is_seen: bool) -> None:
    # Given a job that does not heed SIGTERM, and has an output, on an engine whose disk can be seen or not
    out = OutputSpec(id="out", type=OutputType.EVENT, path="out")
    job = make_job(command=IGNORES_SIGTERM + f"echo begun; echo 1 > out; {WAITS}{WRITES}{STAYS}", outputs=(out,))
    if is_seen:
        see(engine, 0)
    thread = workers.run(workers.another(disk_limit=LIMIT, shutdown_grace=60))
    running(job)

    # When it writes
    if is_seen:
        write_too_much(engine)
        see(engine, LIMIT + 1)
    else:
        create_go_file(engine)

    # I expect it to end at once and say why, and its output to be handled
    job = completed(job)
    assert (job.status, job.reason, job.exit_code) == (State.FAILED, Reason.DISK, 137)
    assert job.error.startswith("the job had written ")
    assert job.error.endswith("; the limit is 8 MiB")
    assert event_types(job) == ["start", "log", "exit", "output", "complete"]
    assert stored_log(job) == ["begun"]
    thread.join(10)
    wait_until_removed(engine)


def test_a_job_with_too_many_files_is_killed(engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    see(engine, 0, files=10**6)
    sizes(engine, monkeypatch, lambda _: 0, files=513)
    job = make_job(command=STAYS)
    workers.run(workers.another(disk_limit=LIMIT))
    running(job)

    see(engine, 0, files=10**6, files_used=513)

    assert completed(job).error == "the job had 513 files and directories on the disk; the limit is 512"


def test_a_job_is_not_measured_while_nothing_is_written(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job on a disk to which little is written
    see(engine, 0)
    looks = sizes(engine, monkeypatch, lambda _: 0)
    job = make_job(command=STAYS)
    workers.run(workers.another(disk_limit=LIMIT))
    running(job)

    # When it is looked at many times, until much is written
    seen = threading.Semaphore(0)
    monkeypatch.setattr(FakeEngine, "disk_space", lambda self: seen.release() or self.disk)
    for used in range(20):
        see(engine, used)
        assert seen.acquire(timeout=10)
    assert looks == []
    see(engine, LIMIT + 20)

    # I expect it to be measured then
    wait_for(lambda: looks, 10, "a measurement")
    services.cancel(job.id)
    assert completed(job).reason == Reason.CANCELLED


@pytest.mark.parametrize(
    ("code", "status", "reason"), [(1, State.FAILED, Reason.DISK), (0, State.COMPLETED, "")], ids=["failed", "completed"]
)
def test_a_job_that_fails_after_it_wrote_too_much_failed_for_that(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch, code: int, status: State, reason: str
) -> None:
    # Given a job that ends before anybody has looked at the disk
    see(engine, 0)
    workers.set_intervals(disk={"look": 60.0})
    job = make_job(command=f"{WAITS}{WRITES}exit {code}")
    workers.run(workers.another(disk_limit=LIMIT))
    running(job)

    # When
    see(engine, LIMIT + 1)
    create_go_file(engine)

    # I expect its exit code, and the reason if it needs one
    job = completed(job)
    assert (job.status, job.reason, job.exit_code) == (status, reason, code)


def test_a_job_that_cannot_have_written_too_much_costs_no_call(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    see(engine, 0)
    looks = sizes(engine, monkeypatch, lambda _: 2 * LIMIT)
    job = make_job(command=f"{WAITS}exit 1")
    workers.run(workers.another(disk_limit=LIMIT))
    running(job)

    see(engine, LIMIT)
    create_go_file(engine)

    assert completed(job).reason == Reason.EXIT_CODE
    assert looks == []


def test_an_adopted_job_is_measured_at_once(engine: FakeEngine, workers: Workers) -> None:
    # Given a job that has written too much, whose worker was not allowed to see that
    see(engine, 0)
    job = make_job(command=f"{WRITES}{STAYS}")
    first = workers.another()
    thread = workers.run(first)
    running(job)
    first.stop()
    thread.join(10)

    # When another worker adopts it
    workers.run(workers.another(disk_limit=LIMIT))

    # I expect it to be ended, although nothing is written any more
    assert completed(job).reason == Reason.DISK


def test_a_process_is_killed_although_the_database_is_away(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a database that stores no decision for a while
    see(engine, 0)
    decide, away = lifecycle.decide, threading.Event()
    away.set()

    def decide_later(*arguments: Any, **values: Any) -> Job:
        if away.is_set():
            raise OperationalError("away")
        return decide(*arguments, **values)

    monkeypatch.setattr(lifecycle, "decide", decide_later)
    job = make_job(command=f"{IGNORES_SIGTERM}{WAITS}{WRITES}{STAYS}")
    workers.run(workers.another(disk_limit=LIMIT))
    running(job)

    # When
    write_too_much(engine)
    see(engine, LIMIT + 1)

    # I expect the process to end before the database is back, and the reason to be known then
    wait_for(lambda: [one.phase for one in engine.list({})] == ["ended"], 10, "its end")
    assert Job.objects.get().status == State.RUNNING
    away.clear()
    job = completed(job)
    assert (job.reason, job.exit_code) == (Reason.DISK, 137)


def test_an_engine_that_cannot_measure_is_asked_again(engine: FakeEngine, workers: Workers) -> None:
    see(engine, 0)
    job = make_job(command=f"{WAITS}{WRITES}{STAYS}")
    workers.run(workers.another(disk_limit=LIMIT))
    running(job)
    write_too_much(engine)

    for _ in range(6):
        engine.fail_next("disk_use", EngineUnavailable("a hiccup"))
    see(engine, LIMIT + 1)

    assert completed(job).reason == Reason.DISK


@pytest.mark.parametrize(("tries", "reason"), [(5, Reason.DISK), (4, Reason.EXIT_CODE)])
def test_a_job_that_prevents_its_measurement_is_killed(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch, tries: int, reason: Reason
) -> None:
    # Given a job whose files cannot be measured several times in a row, and then are few, and this again
    see(engine, 0)
    looks: list[str] = []

    def disk_use(name: str, *, count_files: bool = False) -> DiskUse:
        looks.append(name)
        if len(looks) % (tries + 1):
            raise Unmeasurable("too many files")
        return DiskUse(0, 0)

    monkeypatch.setattr(engine, "disk_use", disk_use)
    job = make_job(command=f"{WAITS}exit 1")
    workers.run(workers.another(disk_limit=LIMIT))
    running(job)

    # When more than its limit is written to the disk, again and again
    for step in range(1, 4 * tries):
        seen = len(looks)
        see(engine, step * (LIMIT + 1))
        wait_for(lambda seen=seen: len(looks) > seen or Job.objects.get().completed_at, 10, "another try")  # type: ignore[misc]

    # I expect it to be ended after the fifth time in a row, and not before
    monkeypatch.setattr(engine, "disk_use", lambda name, *, count_files=False: DiskUse(0, 0))
    if reason != Reason.DISK:
        create_go_file(engine)
    job = completed(job)
    assert job.reason == reason
    if reason == Reason.DISK:
        assert job.error == "the job had too many or too deep files on the disk: they cannot be measured"


def test_the_watch_survives_an_unexpected_error(engine: FakeEngine, workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    see(engine, 0)
    job = make_job(command=f"{WAITS}{WRITES}{STAYS}")
    workers.run(workers.another(disk_limit=LIMIT))
    running(job)
    write_too_much(engine)

    engine.fail_next("disk_use", ZeroDivisionError("a bug"))
    see(engine, LIMIT + 1)

    assert completed(job).reason == Reason.DISK
    assert "an unexpected error in the disk watch" in caplog.text


@contextmanager
def two_jobs(workers: Workers) -> Iterator[tuple[Job, Job]]:
    """Run two jobs until the end of the context."""
    jobs = make_job(command=STAYS), make_job(command=STAYS)
    supervisor = workers.another(disk_limit=SIZE)
    for _ in jobs:
        workers.run(supervisor)
    for job in jobs:
        running(job)
    wait_for(lambda: all(run.status == State.RUNNING for run in supervisor._runs.snapshot()), 20, "both to be watched")
    yield jobs
    for job in jobs:
        services.cancel(job.id)
        completed(job)


@pytest.mark.parametrize("short", ["bytes", "files"])
def test_an_almost_full_disk_ends_the_job_that_uses_most_of_it(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch, short: str
) -> None:
    # Given two jobs of which one has written more than the other, both less than they may
    see(engine, 0, files=10**6)
    with two_jobs(workers) as (small, large):
        uses = {str(small.uuid): 20, str(large.uuid): 60}

        def disk_use(name: str, *, count_files: bool = False) -> DiskUse:
            amount = next(amount for uuid, amount in uses.items() if uuid in name)
            return DiskUse(amount * 1024**3 if short == "bytes" else 0, amount * 1000 if count_files else None)

        monkeypatch.setattr(engine, "disk_use", disk_use)

        # When the disk is almost full
        see(engine, SIZE - 1 if short == "bytes" else 0, files=10**6, files_used=10**6 - 1 if short == "files" else 0)

        # I expect the large one to be ended, and no other
        large = completed(large)
        assert (large.status, large.reason) == (State.FAILED, Reason.DISK)
        assert large.error.startswith("the disk was almost full, and the job used ")
        assert Job.objects.get(pk=small.pk).status == State.RUNNING


def test_an_almost_full_disk_ends_the_job_that_cannot_be_measured(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    see(engine, 0)
    with two_jobs(workers) as (known, hidden):

        def disk_use(name: str, *, count_files: bool = False) -> DiskUse:
            if str(hidden.uuid) in name:
                raise Unmeasurable("too many files")
            return DiskUse(60 * 1024**3)

        monkeypatch.setattr(engine, "disk_use", disk_use)
        see(engine, SIZE - 1)

        assert completed(hidden).error.startswith("the disk was almost full, and the job had too many or too deep files")
        assert Job.objects.get(pk=known.pk).status == State.RUNNING


def test_no_job_is_ended_for_a_disk_that_others_fill(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    see(engine, 0)
    sizes(engine, monkeypatch, lambda _: MIB)
    with two_jobs(workers) as jobs:
        see(engine, SIZE)

        wait_for(lambda: "no job here uses much of it" in caplog.text, 10, "the warning")
        assert {Job.objects.get(pk=job.pk).status for job in jobs} == {State.RUNNING}


@pytest.mark.parametrize("kilobytes", [(1100,), (600, 500)], ids=["alone", "together"])
def test_inputs_count(engine: FakeEngine, workers: Workers, kilobytes: tuple[int, ...]) -> None:
    # Given inputs that are larger than what the job may write
    inputs = [file_input(f"in{number}", bytes(size * 1000)) for number, size in enumerate(kilobytes)]
    job = make_job(command="true", inputs=tuple(inputs))

    # When
    workers.another(disk_limit=MIB).run_jobs()

    # I expect it never to run
    job = completed(job)
    assert (job.status, job.reason, job.started_at) == (State.FAILED, Reason.INPUT_FAILED, None)
    assert job.error.endswith("that the job may still write (DISK_LIMIT)")
    assert event_types(job)[-3:] == ["input", "exit", "complete"]


def test_a_decided_job_is_killed_by_the_next_owner_without_a_grace(engine: FakeEngine, workers: Workers) -> None:
    # Given a worker that was killed between its decision and the end of the process
    see(engine, 0)
    job = make_job(command=f"{IGNORES_SIGTERM}{STAYS}")
    first = workers.another()
    thread = workers.run(first)
    running(job)
    first.stop()
    thread.join(10)
    Job.objects.filter(pk=job.pk).update(status=State.FAILED, reason=Reason.DISK, error="too much")

    # When another adopts it
    workers.run(workers.another(shutdown_grace=60))

    # I expect it not to wait
    assert completed(job).exit_code == 137
