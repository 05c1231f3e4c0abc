"""Rows that a worker owns and that its runs do not match."""

import pytest

from jobs.models import Job
from jobs.running.suspects import Suspects
from jobs.worker.job_watch import JobWatch
from jobs.worker.upload_pool import UploadPool
from tests.helpers.factories import claimed, make_job, make_node

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def watch() -> JobWatch:
    return JobWatch("node", UploadPool(1), Suspects(), proven_harmless=5.0)


def owner_of(job: Job) -> object:
    return Job.objects.get(pk=job.pk).owner_id


def test_a_job_that_no_thread_drives_is_released(watch: JobWatch, caplog: pytest.LogCaptureFixture) -> None:
    # Given a job of this worker that no thread drives: its run has failed in a way that nothing expects
    job = make_job()
    claim = claimed(job, make_node())

    # When it is seen once, I expect nothing: a thread may just have claimed it
    watch.check(claim.owner, [])
    assert owner_of(job) == claim.owner

    # When it is seen again, I expect it to be released
    watch.check(claim.owner, [])
    assert owner_of(job) is None
    assert "released jobs that no thread drives" in caplog.text


def test_a_job_of_another_worker_is_not_released(watch: JobWatch) -> None:
    # Given jobs of two workers
    node = make_node()
    mine, other = make_job(), make_job()
    claim = claimed(mine, node)
    theirs = claimed(other, node)

    # When the first finds that it drives none
    for _ in range(2):
        watch.check(claim.owner, [])

    # I expect only its own job to be released
    assert (owner_of(mine), owner_of(other)) == (None, theirs.owner)
