"""Hosts that send or accept bytes very slowly: they never hold all threads of a worker."""

import json
from collections.abc import Iterator

import pytest
from django.db import OperationalError

from callbacks.models import Event
from jobs import services
from jobs.api.waiting_reason import waiting_for
from jobs.maintenance.dead_workers import sign_off
from jobs.models import Job, Worker
from jobs.spec import InputSpec, OutputSpec
from jobs.states import InputType, OutputType, Reason, State, TransferStatus
from jobs.worker.supervisor import Supervisor
from tests.fake_engine import FakeEngine
from tests.helpers.factories import make_job
from tests.helpers.fileserver import FileServer, drip, drip_body
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed

pytestmark = pytest.mark.django_db(transaction=True)

THREADS = 4
MANY = 1000  # requests


@pytest.fixture(autouse=True)
def quick(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten intervals, and have supervisors start threads of their own."""
    workers.set_intervals(worker={"tick": 0.05, "heartbeat": 0.05})
    monkeypatch.setattr("jobs.worker.supervisor.hint", lambda *_: False)


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A server that answers `/in` and `/out` byte by byte, and all other paths at once."""
    with FileServer() as server:
        server.fault("/in", *[drip_body] * MANY)
        server.fault("/out", *[drip] * MANY)
        yield server


def uploads(url: str, count: int) -> tuple[OutputSpec, ...]:
    return tuple(OutputSpec(id=f"out-{number}", type=OutputType.UPLOAD, path="out", url=url) for number in range(count))


def uploading(url: str, *, count: int = 3) -> Job:
    return make_job(command="echo x > out; exit 3", cpu_millis=10, memory_mib=6, outputs=uploads(url, count))


def downloading(url: str) -> Job:
    inputs = (InputSpec(id="in", type=InputType.DOWNLOAD, path="in", url=url),)
    return make_job(command="cat in", cpu_millis=10, memory_mib=6, inputs=inputs)


def wait_for_slow_requests(server: FileServer, requests: int) -> None:
    """Wait until this many slow requests are in progress."""
    for _ in range(requests):
        assert server.hanging.acquire(timeout=20)


def outputs(job: Job) -> list[tuple[str, str]]:
    return [(item.status, item.error) for item in job.outputs.all()]


def waits_for(job: Job) -> str | None:
    return waiting_for(Job.objects.get(pk=job.pk))


def test_slow_peers_do_not_keep_other_jobs_from_starting(workers: Workers, server: FileServer) -> None:
    # Given a worker of 4 threads, and many jobs with slow peers
    sending = [uploading(server.url("/out")) for _ in range(12)]
    receiving = [downloading(server.url("/in")) for _ in range(12)]
    workers.another(worker_threads=THREADS)
    wait_for_slow_requests(server, requests=THREADS)

    # When a job without transfers is created
    good = make_job(command="exit 0", cpu_millis=10, memory_mib=6)

    # I expect it to run, and the others to report what they wait for
    assert completed(good).status == State.COMPLETED
    wait_for(lambda: waits_for(receiving[-1]) == "its turn to download inputs: other jobs are downloading theirs", 20)
    assert Job.objects.filter(completed_at=None, has_downloads=True, node__isnull=False).count() == THREADS // 2
    assert Job.objects.filter(exited_at__isnull=False, completed_at=None).count() >= THREADS // 2

    # And all of them to end when they are cancelled
    for job in [*sending, *receiving]:
        services.cancel(job.id)
    for job in receiving:
        assert completed(job).status == State.CANCELLED
    for job in sending:
        assert completed(job).status in (State.FAILED, State.CANCELLED)

    # And the threads to be free
    assert completed(uploading(server.url("/free"), count=1)).outputs.get().status == TransferStatus.SUCCESS


def test_cancelling_a_decided_job_ends_its_outputs(workers: Workers, server: FileServer) -> None:
    # Given a job that has ended, and whose second output is being uploaded
    first = OutputSpec(id="first", type=OutputType.EVENT, path="out")
    job = make_job(command="echo x > out; exit 3", outputs=(first, *uploads(server.url("/out"), 2)))
    workers.another()
    wait_for_slow_requests(server, requests=1)

    # When it is cancelled, twice
    services.cancel(job.id)
    services.cancel(job.id)

    # I expect the first output to stay successful, the second to have failed, and the last not to be uploaded
    job = completed(job)
    assert (job.status, job.reason, job.exit_code, job.error) == (State.FAILED, Reason.EXIT_CODE, 3, "exit code 3")
    assert outputs(job) == [("success", ""), ("failed", "cancelled"), ("skipped", "")]
    cancelled = Event.objects.filter(type="orchestrator.job.output").order_by("sequence")[1]
    assert json.loads(bytes(cancelled.body))["data"]["error"] == {"code": "upload_failed", "message": "cancelled"}
    assert [type_.rpartition(".")[2] for type_ in Event.objects.order_by("sequence").values_list("type", flat=True)] == [
        "start",
        "exit",
        "output",
        "output",
        "complete",
    ]
    assert len(server.of("/out")) == 1


def test_all_outputs_of_a_job_share_one_deadline(workers: Workers, server: FileServer) -> None:
    # Given a job with ten outputs for a slow host
    job = uploading(server.url("/out"), count=10)

    # When the time-out for transfers is half a second
    workers.another(transfer_timeout=0.5)

    # I expect the first output to have used it up
    sentence = f"PUT {server.url('/out')} did not finish within TRANSFER_TIMEOUT"
    assert outputs(completed(job)) == [("failed", sentence)] * 10
    assert len(server.of("/out")) == 1


def test_a_restarted_upload_gets_no_more_time(workers: Workers, server: FileServer) -> None:
    # Given an output for a slow host
    job = uploading(server.url("/out"), count=1)
    worker = workers.another(transfer_timeout=0.3)

    # When the run is woken again and again, and restarts the upload each time
    def completed_though_woken() -> bool:
        for run in worker._runs.snapshot():
            run.interrupt.wake()
        return Job.objects.get(pk=job.pk).completed_at is not None

    wait_for(completed_though_woken, 20, "the time-out")

    # I expect all tries to share the time
    sentence = f"PUT {server.url('/out')} did not finish within TRANSFER_TIMEOUT"
    assert outputs(job) == [("failed", sentence)]


@pytest.mark.parametrize("fault", ["/in", "/out"])
def test_a_slow_download_ends_at_the_deadline(workers: Workers, server: FileServer, fault: str) -> None:
    # Given an input from a host that sends the body, or the head of its answer, very slowly
    job = downloading(server.url(fault))

    # When the time-out for transfers is half a second
    workers.another(transfer_timeout=0.5)

    # I expect the input to have failed
    job = completed(job)
    assert (job.reason, job.error) == (
        Reason.INPUT_FAILED,
        f"GET {server.url(fault)} did not finish within TRANSFER_TIMEOUT",
    )


def is_signed_off(worker: Supervisor) -> bool:
    """Sign a worker off that goes on. Return whether that worked: PostgreSQL may find a deadlock with what the worker does."""
    try:
        sign_off(worker._heartbeat.worker_id)
    except OperationalError:
        return False
    return True


@pytest.mark.parametrize("how", ["removed", "stopped"])
def test_pending_uploads_are_done_by_the_next_worker(workers: Workers, server: FileServer, how: str) -> None:
    # Given a worker that uploads the outputs of some jobs, while others wait for an upload thread
    jobs = [uploading(server.url("/out"), count=2) for _ in range(6)]
    first = workers.another(worker_threads=THREADS)
    wait_for(lambda: first._upload_pool.size >= THREADS, 20, "the jobs to end")  # it may claim no more than these
    wait_for_slow_requests(server, requests=THREADS // 2)

    # When it loses its jobs, and the host answers normally again
    server.heal("/out")
    if how == "stopped":
        first.stop()
        assert not Job.objects.exclude(owner=None).exists()
    else:
        wait_for(lambda: is_signed_off(first), 20, "the end of the worker")

    # I expect all outputs to be uploaded
    workers.another(worker_threads=THREADS)
    for job in jobs:
        assert outputs(completed(job)) == [("success", "")] * 2


def test_a_cancel_survives_its_worker(workers: Workers, server: FileServer, engine: FakeEngine) -> None:
    # Given a worker that stopped during an upload
    job = uploading(server.url("/out"))
    first = workers.another()
    wait_for_slow_requests(server, requests=1)
    first.stop()

    # When the job is cancelled while it has no owner
    services.cancel(job.id)
    workers.another()

    # I expect no further upload
    assert outputs(completed(job)) == [("skipped", "")] * 3
    assert len(server.of("/out")) == 1
    wait_for(lambda: not engine.list({}), 10, "the container to be removed")


def test_a_worker_reports_which_jobs_it_accepts(workers: Workers, server: FileServer) -> None:
    # Given a worker whose slots for downloads and uploads are all in use
    workers.another(worker_threads=2)
    jobs = [downloading(server.url("/in")), *[uploading(server.url("/out")) for _ in range(2)]]
    accepts = Worker.objects.values_list("takes_downloads", "takes_uploads")
    wait_for(lambda: accepts.get() == (False, False), 20, "the worker to report it")

    # I expect a new job with uploads to wait, and to report why
    more = uploading(server.url("/out"))
    assert waits_for(more) == "its turn: the outputs of jobs that have ended are still being uploaded"
    assert more.node is None

    # And to be claimed when there are free slots again
    for job in jobs:
        services.cancel(job.id)
    wait_for(lambda: accepts.get() == (True, True), 20, "the worker to report it")
    wait_for_slow_requests(server, requests=1)
    services.cancel(more.id)
    completed(more)
