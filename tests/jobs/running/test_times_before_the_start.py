"""The row says when a job was claimed, pulled and prepared, for the time line of its page."""

import pytest

from jobs import lifecycle
from jobs.models import Job
from tests.fake_engine import FakeEngine
from tests.helpers.factories import claimed, make_job
from tests.helpers.workers import Workers, completed

pytestmark = pytest.mark.django_db(transaction=True)


def run(workers: Workers, job: Job) -> Job:
    workers.another(worker_threads=1).run_jobs()
    return completed(job)


def test_a_job_whose_image_is_there(workers: Workers) -> None:
    # Given a job that has not been claimed
    job = make_job()
    assert (job.claimed_at, job.pulled_at, job.prepared_at) == (None, None, None)

    # When it runs on a node that has its image
    job = run(workers, job)

    # I expect the steps in order, without a pull
    assert job.claimed_at is not None
    assert job.prepared_at is not None
    assert job.created_at <= job.claimed_at <= job.prepared_at
    assert job.pulled_at is None


def test_a_job_whose_image_is_pulled(engine: FakeEngine, workers: Workers) -> None:
    # Given a node without the image
    engine.registry["alpine:latest"] = engine.images.pop("alpine:latest")

    # When a job needs it
    job = run(workers, make_job())

    # I expect the pull between the claim and the start
    assert job.claimed_at is not None
    assert job.pulled_at is not None
    assert job.prepared_at is not None
    assert job.claimed_at <= job.pulled_at <= job.prepared_at


def test_a_requeued_job_waits_again() -> None:
    # Given a claimed job that is about to start
    job = make_job()
    claim = claimed(job)
    lifecycle.report_pulled(claim, "creating the container")
    lifecycle.report_prepared(claim, "starting")

    # When its node cannot start it
    lifecycle.requeue(claim)

    # I expect none of these times: it is not claimed any more
    job.refresh_from_db()
    assert (job.claimed_at, job.pulled_at, job.prepared_at) == (None, None, None)
