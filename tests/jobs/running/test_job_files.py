"""Inputs and outputs of jobs, their progress, and what may fail, on the fake engine."""

import json
import re
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError
from hypothesis import given
from hypothesis import strategies as st

from callbacks.models import Event
from jobs import lifecycle, services
from jobs.api.waiting_reason import waiting_for
from jobs.errors import DiskFull, EngineRefused, EngineUnavailable, ImageUnavailable
from jobs.models import Input, Job
from jobs.spec import InputSpec, OutputSpec
from jobs.states import InputType, OutputType, Reason, State
from jobs.transfers import TransferLimits
from jobs.transfers.formatting import format_size
from tests.fake_engine import FakeEngine
from tests.helpers.factories import make_job
from tests.helpers.fileserver import Exchange, FileServer, drip_body, status
from tests.helpers.job_checks import event_types
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed

pytestmark = pytest.mark.django_db(transaction=True)

A_DOWNLOAD = InputSpec(id="in", type=InputType.DOWNLOAD, path="in", url="http://127.0.0.1/in")


class Disk:
    """The worker's disk: full until `has_room` is set."""

    def __init__(self) -> None:
        self.has_room = False

    def put_download(self, *_: Any, **__: Any) -> int:
        if not self.has_room:
            raise DiskFull("the worker's disk is full")
        return 0


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr("jobs.running.job_files.transfers.put_download", disk.put_download)
    return disk


def waits_for(job: Job) -> str:
    return Job.objects.get(pk=job.pk).doing


def test_a_job_waits_for_disk_space(workers: Workers, disk: Disk) -> None:
    # Given a job whose download does not fit on the disk
    job = make_job(inputs=(A_DOWNLOAD,))
    workers.run(workers.another())
    wait_for(lambda: waits_for(job) == "space on the worker's disk", 20)

    # When there is space
    disk.has_room = True

    # I expect it to run
    assert completed(job).status == State.COMPLETED
    assert event_types(job) == ["input", "start", "exit", "complete"]


def test_waiting_for_disk_space_ends_at_the_transfer_timeout(workers: Workers, disk: Disk) -> None:
    # Given a job whose second input never fits on the disk
    small = InputSpec(id="small", type=InputType.FILE, path="small", content=b"x")
    job = make_job(inputs=(small, A_DOWNLOAD))

    # When TRANSFER_TIMEOUT is over
    workers.another(transfer_timeout=0.3).run_jobs()

    # I expect the input to have failed, and the job with it
    job = completed(job)
    assert (job.status, job.reason) == (State.FAILED, Reason.INPUT_FAILED)
    assert job.error == "the worker's disk is full"
    assert codes(job, "input") == {"small": "", "in": "download_failed"}
    [*_, failed] = Event.objects.filter(type="orchestrator.job.input").order_by("sequence")
    assert json.loads(bytes(failed.body))["data"]["durationSeconds"] >= 0.3


def test_an_engine_outage_uses_up_no_transfer_time(engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a time-out of 0.2 s for inputs, and an engine that does not start the job at the first tries
    left: list[float] = []

    def put_download(*_: Any, limits: TransferLimits, **__: Any) -> int:
        left.append(limits.deadline - time.monotonic())
        return 0

    monkeypatch.setattr("jobs.running.job_files.transfers.put_download", put_download)
    workers.set_intervals(run={"retries": (0.2,)})
    job = make_job(inputs=(A_DOWNLOAD,))
    for _ in range(3):
        engine.fail_next("start", EngineUnavailable("away"))

    # When
    workers.another(transfer_timeout=0.2).run_jobs()

    # I expect each try to have the full time
    assert completed(job).status == State.COMPLETED
    assert len(left) == 4
    assert min(left) > 0


def test_an_image_deleted_after_its_pull_is_pulled_again(engine: FakeEngine, workers: Workers) -> None:
    # Given an image that is deleted between its pull and the creation of the container
    job = make_job()
    for _ in range(3):
        engine.fail_next("create", ImageUnavailable("no such image"))

    # When
    workers.another().run_jobs()

    # I expect the job to run
    assert completed(job).status == State.COMPLETED


def codes(job: Job, type_: str) -> dict[str, str]:
    """Return the error codes in the events of a job's inputs or outputs, by id; empty for those that succeeded."""
    rows = Event.objects.filter(subscription__stream=job.uuid, type=f"orchestrator.job.{type_}").order_by("sequence")
    bodies = [json.loads(bytes(row.body))["data"] for row in rows]
    return {body[f"{type_}Id"]: body.get("error", {}).get("code", "") for body in bodies}


@pytest.mark.parametrize(
    ("path", "url", "code"),
    [
        ("data/in", "/missing", "download_http_error"),
        ("data/in", "ftp://host/", "download_failed"),
        ("in/in", "/here", "artifact_write_failed"),
    ],
)
def test_an_input_that_fails_has_a_code(workers: Workers, path: str, url: str, code: str) -> None:
    # Given a job with a valid input, and a download that fails
    with FileServer() as server:
        server.serve("/here", b"x")
        small = InputSpec(id="small", type=InputType.FILE, path="in", content=b"x")
        url = server.url(url) if url.startswith("/") else url
        job = make_job(inputs=(small, InputSpec(id="data", type=InputType.DOWNLOAD, path=path, url=url)))

        # When it runs
        workers.another().run_jobs()

    # I expect the event of the second to have a code
    assert completed(job).reason == Reason.INPUT_FAILED
    assert codes(job, "input") == {"small": "", "data": code}


def test_outputs_that_fail_have_a_code(workers: Workers) -> None:
    # Given a job with one valid output and others that fail
    with FileServer() as server:
        server.serve("/up", b"")
        server.fault("/no", status(403))
        uploads = {"good": ("out", "/up"), "gone": ("missing", "/up"), "kind": ("dir", "/up"), "refused": ("out", "/no")}
        results = {"result": "out", "lost": "missing", "binary": "binary"}
        job = make_job(
            command="echo x > out; mkdir dir; printf '\\377' > binary",
            outputs=(
                *(
                    OutputSpec(id=id_, type=OutputType.UPLOAD, path=path, url=server.url(url))
                    for id_, (path, url) in uploads.items()
                ),
                *(OutputSpec(id=id_, type=OutputType.EVENT, path=path) for id_, path in results.items()),
            ),
        )

        # When it has ended
        workers.another().run_jobs()
        assert completed(job).status == State.COMPLETED

    # I expect each event to have a code
    assert codes(job, "output") == {
        "good": "",
        "gone": "artifact_not_found",
        "kind": "artifact_read_failed",
        "refused": "upload_failed",
        "result": "",
        "lost": "artifact_not_found",
        "binary": "artifact_read_failed",
    }


def test_an_output_that_the_engine_refuses_has_a_code(engine: FakeEngine, workers: Workers) -> None:
    job = make_job(command="echo x > out", outputs=(OutputSpec(id="out", type=OutputType.EVENT, path="out"),))
    engine.fail_next("stat", EngineRefused("bad parameter"))
    workers.another().run_jobs()
    assert completed(job).outputs.get().error == "bad parameter"
    assert codes(job, "output") == {"out": "artifact_read_failed"}


def test_events_of_transfers_have_a_duration(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a job with an input and an output that take ten minutes each, and an input that takes no time
    skipped = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + sum(skipped))
    monkeypatch.setattr("jobs.running.job_files.time", clock)

    def slow(exchange: Exchange) -> None:
        skipped.append(600.0)
        status(200, b"x")(exchange)

    with FileServer() as server:
        server.fault("/in", slow)
        server.fault("/out", slow)
        small = InputSpec(id="small", type=InputType.FILE, path="small", content=b"x")
        upload = OutputSpec(id="out", type=OutputType.UPLOAD, path="data/input.txt", url=server.url("/out"))
        job = make_job(command="true", inputs=(a_download(server, "/in"), small), outputs=(upload,))

        # When it runs
        workers.another().run_jobs()
        completed(job)

    # I expect each event to have the duration of its own transfer
    rows = Event.objects.filter(subscription__stream=job.uuid, type__endswith="put").order_by("sequence")
    durations = [json.loads(bytes(row.body))["data"]["durationSeconds"] for row in rows]
    assert [duration // 600 for duration in durations] == [1, 0, 1]


def a_download(server: FileServer, path: str) -> InputSpec:
    return InputSpec(id="data", type=InputType.DOWNLOAD, path="data/input.txt", url=f"{server.url(path)}?secret=1")


def waiting(job: Job) -> str:
    return waiting_for(Job.objects.get(pk=job.pk)) or ""


def test_a_download_reports_its_progress(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a job with two inputs, the second from a slow server
    workers.set_intervals(run={"progress": 0.05})
    with FileServer() as server:
        server.fault("/in", drip_body)
        small = InputSpec(id="small", type=InputType.FILE, path="small", content=b"x")
        job = make_job(inputs=(small, a_download(server, "/in")))
        workers.run(workers.another())

        # I expect its progress in bytes, several times, and no URL
        said: set[str] = set()

        def says() -> int:
            if (sentence := waiting(job)).startswith("downloading"):
                said.add(sentence)
            return len(said) > 2

        wait_for(says, 20)
        sentence = re.compile(r'downloading input "data" to data/input\.txt(: \d+ B of 976\.6 KiB)?')
        assert [one for one in said if not sentence.fullmatch(one)] == []
        services.cancel(job.id)
        completed(job)


def test_a_wrong_sha256_of_a_file_that_was_written_while_it_arrived_fails_the_job(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a download that is written while it arrives, with another sha256 than the job specifies
    monkeypatch.setattr("jobs.transfers.put_inputs.ALWAYS_SPOOLED", 1000)
    monkeypatch.setattr("jobs.transfers.download._CHUNK_BYTES", 1000)
    put, started = engine.put, engine.start
    puts: list[str] = []
    starts: list[str] = []
    monkeypatch.setattr(engine, "put", lambda name, *rest: (puts.append(name), put(name, *rest)))
    monkeypatch.setattr(engine, "start", lambda name: (starts.append(name), started(name)))
    with FileServer() as server:
        url = server.serve("/in", bytes(10_000))
        job = make_job(inputs=(InputSpec(id="in", type=InputType.DOWNLOAD, path="in", url=url, sha256="0" * 64),))

        # When it runs
        workers.another().run_jobs()

    # I expect its input to have failed, and a container that got a part of the file and never started
    job = completed(job)
    assert (job.status, job.reason) == (State.FAILED, Reason.INPUT_FAILED)
    assert "has a different sha256" in job.error
    assert len(puts) == 1
    assert starts == []


def test_each_step_before_the_start_is_reported(engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an image that has to be pulled, and a job with inputs of both kinds
    engine.registry["alpine:latest"] = engine.images.pop("alpine:latest")
    told: list[str] = []
    input_done = lifecycle.input_done

    def telling(report: Callable[[lifecycle.Claim, str], None]) -> Callable[[lifecycle.Claim, str], None]:
        def tell(claim: lifecycle.Claim, text: str) -> None:
            told.append(text)
            report(claim, text)

        return tell

    def tell_following(claim: lifecycle.Claim, item: Input, size: int, following: str, seconds: float) -> None:
        told.append(following)
        input_done(claim, item, size, following, seconds)

    for name in ("report_progress", "report_pulled", "report_prepared"):
        monkeypatch.setattr(lifecycle, name, telling(getattr(lifecycle, name)))
    monkeypatch.setattr(lifecycle, "input_done", tell_following)
    with FileServer() as server:
        server.serve("/in", b"content")
        file = InputSpec(id="file", type=InputType.FILE, path="file", content=b"x")
        job = make_job(inputs=(file, a_download(server, "/in")))

        # When it runs
        workers.another().run_jobs()

    # I expect one text for each step
    assert completed(job).status == State.COMPLETED
    assert told == [
        "pulling alpine:latest",
        "creating the container",
        'copying input "file" to file',
        'downloading input "data" to data/input.txt',
        "starting",
        "starting",
    ]


def test_a_download_continues_during_a_database_outage(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a download whose progress cannot be stored
    workers.set_intervals(run={"progress": 0.0})
    asked: list[str] = []
    report_progress = lifecycle.report_progress

    def fail(claim: lifecycle.Claim, text: str) -> None:
        if "input.txt: " in text:
            asked.append(text)
            raise OperationalError("away")
        report_progress(claim, text)

    monkeypatch.setattr(lifecycle, "report_progress", fail)
    with FileServer() as server:
        url = server.serve("/in", bytes(4 * 1024**2))
        job = make_job(inputs=(InputSpec(id="data", type=InputType.DOWNLOAD, path="data/input.txt", url=url),))

        # When it runs
        workers.another().run_jobs()

    # I expect the job to run, and one try to store the progress
    assert completed(job).status == State.COMPLETED
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536 * 1024**2, "1.5 GiB"),
        (1024**3 - 1, "1 GiB"),
        (4 * 1024**3, "4 GiB"),
        (10 * 1024**4, "10240 GiB"),
        (2**60 - 10**8, "1073741823.9 GiB"),
    ],
)
def test_a_size_is_shown_in_a_unit_that_fits(count: int, shown: str) -> None:
    assert format_size(count) == shown


@given(st.integers(min_value=0, max_value=2**60))
def test_a_size_that_is_shown_is_the_size(count: int) -> None:
    number, unit = format_size(count).split()
    factor = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}[unit]
    assert abs(float(number) * factor - count) <= 0.0501 * factor
    assert float(number) >= 1 or count == 0
    assert float(number) < 1024 or unit == "GiB"
