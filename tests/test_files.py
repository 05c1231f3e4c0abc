"""What a job's files may run into, on the fake engine: the worker's own disk, and an image that somebody deletes."""

import time
from typing import Any

import pytest

from jobs.engine.fake import FakeEngine
from jobs.errors import DiskFull, EngineUnavailable, ImageUnavailable
from jobs.models import Job
from jobs.spec import InputSpec
from jobs.states import InputType, Reason, State
from jobs.transfers import TransferLimits
from tests.factories import make_job
from tests.test_runner import told
from tests.waiting import wait_for
from tests.workers import Workers, completed

pytestmark = pytest.mark.django_db(transaction=True)

A_DOWNLOAD = InputSpec(id="in", type=InputType.DOWNLOAD, path="in", url="http://127.0.0.1/in")


class Disk:
    """Where downloads go meanwhile: it is full until it has room, and then takes them at once."""

    def __init__(self) -> None:
        self.has_room = False

    def put_download(self, *_: Any, **__: Any) -> int:
        if not self.has_room:
            raise DiskFull("the worker's disk has no room for the download")
        return 0


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr("jobs.files.transfers.put_download", disk.put_download)
    return disk


def waits_for(job: Job) -> str:
    return Job.objects.get(pk=job.pk).doing


def test_a_job_waits_for_room_on_the_disk(workers: Workers, disk: Disk) -> None:
    # Given a job whose download finds no room
    job = make_job(inputs=(A_DOWNLOAD,))
    workers.run(workers.another())
    wait_for(lambda: waits_for(job) == "room on the worker's disk", 20)

    # When there is room
    disk.has_room = True

    # I expect it to run
    assert completed(job).status == State.COMPLETED
    assert told(job) == ["input", "start", "exit", "complete"]


def test_a_job_waits_no_longer_for_room_than_its_inputs_may_take(workers: Workers, disk: Disk) -> None:
    # Given a job whose download never finds room, behind an input that needs none
    small = InputSpec(id="small", type=InputType.FILE, path="small", content=b"x")
    job = make_job(inputs=(small, A_DOWNLOAD))

    # When TRANSFER_TIMEOUT is over
    workers.another(transfer_timeout=0.3).run_jobs()

    # I expect the input to have failed, and the job with it
    job = completed(job)
    assert (job.status, job.reason) == (State.FAILED, Reason.INPUT_FAILED)
    assert job.error == "the worker's disk has no room for the download"


def test_an_engine_that_is_away_for_long_spends_no_time_of_the_inputs(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job whose inputs may take 0.2 s, and an engine that does not start it at the first tries
    left: list[float] = []

    def put_download(*_: Any, limits: TransferLimits, **__: Any) -> int:
        left.append(limits.deadline - time.monotonic())
        return 0

    monkeypatch.setattr("jobs.files.transfers.put_download", put_download)
    monkeypatch.setattr("jobs.runner._PAUSES", (0.2,))
    job = make_job(inputs=(A_DOWNLOAD,))
    for _ in range(3):
        engine.fail_next("start", EngineUnavailable("away"))

    # When
    workers.another(transfer_timeout=0.2).run_jobs()

    # I expect each try to have all of that time
    assert completed(job).status == State.COMPLETED
    assert len(left) == 4
    assert min(left) > 0


def test_an_image_that_is_deleted_before_it_is_used_is_pulled_again(engine: FakeEngine, workers: Workers) -> None:
    # Given an image that goes away between its pull and the making of the container
    job = make_job()
    for _ in range(3):
        engine.fail_next("create", ImageUnavailable("no such image"))

    # When
    workers.another().run_jobs()

    # I expect the job to run
    assert completed(job).status == State.COMPLETED
