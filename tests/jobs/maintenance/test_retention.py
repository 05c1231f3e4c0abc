"""Jobs are deleted some time after their end, by the database's clock."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db.models import F
from django.utils import timezone

from callbacks.models import Event, Subscription
from jobs import lifecycle
from jobs.maintenance import retention
from jobs.models import Job, Node
from tests.helpers.factories import claimed, make_job

pytestmark = pytest.mark.django_db

RETENTION = timedelta(minutes=30)


@pytest.fixture(params=[timedelta(days=400), timedelta(days=-400)])
def wrong_clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the clock of this process wrong; the database has its own."""
    monkeypatch.setattr(timezone, "now", lambda: datetime.now(UTC) + request.param)


def ended() -> Job:
    job = make_job()
    lifecycle.cancel(job.uuid)
    return Job.objects.get(uuid=job.uuid)


def age(job: Job, by: timedelta) -> None:
    Job.objects.filter(uuid=job.uuid).update(completed_at=F("completed_at") - by)


def test_an_old_job_is_deleted_with_its_events(wrong_clock: None) -> None:
    # Given a job whose retention is over, one whose retention is not, and one that has not ended
    old, recent, unfinished = ended(), ended(), make_job()
    age(old, RETENTION + timedelta(minutes=1))
    age(recent, RETENTION - timedelta(minutes=1))

    # When old jobs are deleted, I expect only the first one to be deleted
    assert retention.delete_old_jobs(RETENTION) == 1
    assert set(Job.objects.values_list("uuid", flat=True)) == {recent.uuid, unfinished.uuid}
    assert set(Subscription.objects.values_list("stream", flat=True)) == {recent.uuid, unfinished.uuid}
    assert Event.objects.exclude(subscription__stream=recent.uuid).count() == 0


def test_one_expired_job_tells_that_there_are_some() -> None:
    # Given jobs of different ages
    jobs = [ended(), ended(), ended()]
    for job, over in zip(jobs, (-1, 2, 1), strict=True):
        age(job, RETENTION + timedelta(minutes=over))

    # I expect the oldest of those that are expired, whichever was created first: only it is looked for
    assert retention.oldest_expired(RETENTION).get() == jobs[1]

    # When these are deleted, I expect none
    assert retention.delete_old_jobs(RETENTION) == 2
    assert not retention.oldest_expired(RETENTION).exists()


def test_a_job_ends_by_the_clock_of_the_database(wrong_clock: None) -> None:
    # Given a job that its client cancels, and one whose node is lost while it runs
    cancelled, lost = ended(), make_job()
    claim = claimed(lost)
    lifecycle.started(claim, datetime.now(UTC))
    Job.objects.filter(uuid=lost.uuid).update(owner=None)
    lifecycle.node_lost(lost.uuid, Node.objects.get())

    # I expect all their times to be the database's: a moment ago
    for job in Job.objects.filter(uuid__in=[cancelled.uuid, lost.uuid]):
        for moment in (job.finished_at, job.exited_at, job.completed_at):
            assert moment is not None
            assert abs(datetime.now(UTC) - moment) < timedelta(minutes=5)
