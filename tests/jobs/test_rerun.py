"""A job that is run again runs like the first one, with the same files and the same callback."""

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from callbacks.models import Event, Subscription
from jobs import rerun
from jobs.errors import IdTaken
from jobs.models import Job, new_uuid
from jobs.services import JobNotFound
from jobs.spec import CallbackSpec, InputSpec
from jobs.states import InputType, State
from tests.fake_engine import FakeEngine
from tests.helpers.factories import make_job
from tests.helpers.workers import Workers, completed

pytestmark = pytest.mark.django_db(transaction=True)

WEEK = timedelta(days=7)


def test_a_job_runs_again(engine: FakeEngine, workers: Workers) -> None:
    # Given a job with a file that has run
    file = InputSpec(id="file", type=InputType.FILE, path="dir/file", content=b"\0\xff", mode=0o755)
    job = make_job(id="a", inputs=(file,), environment={"A": "b"}, callback=CallbackSpec(url="http://127.0.0.1:9/", keys=("k",)))
    supervisor = workers.another()
    supervisor.run_jobs()
    assert completed(job).status == State.COMPLETED

    # When it is run again
    again = rerun.run_again(job.pk, "b", WEEK)
    supervisor.run_jobs()

    # I expect the same process with the same file, and the same events under the new id
    assert completed(again).status == State.COMPLETED
    assert (again.id, again.uuid != job.uuid) == ("b", True)
    assert again.inputs.get().status == "success"
    events = Event.objects.order_by("subscription", "sequence").values_list("subscription__subject", "type")
    assert [type_ for subject, type_ in events if subject == "b"] == [type_ for subject, type_ in events if subject == "a"]
    assert [subscription.key for subscription in Subscription.objects.all()] == ["k", "k"]


def test_two_at_once_make_one_job() -> None:
    # Given two requests for the same new job
    job = make_job()
    results: list[str] = []

    def run_again() -> None:
        try:
            results.append(rerun.run_again(job.pk, "b", WEEK).id)
        except IdTaken:
            results.append("taken")
        finally:
            connection.close()

    # When they come together
    threads = [threading.Thread(target=run_again) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # I expect one job
    assert sorted(results) == ["b", "taken"]
    assert Job.objects.count() == 2


def test_a_job_that_does_not_exist_is_not_run_again() -> None:
    with pytest.raises(JobNotFound):
        rerun.run_again(new_uuid(), "b", WEEK)


def test_a_job_is_not_run_again_once_it_may_be_deleted() -> None:
    # Given a job whose events are deleted already, as retention does it first
    job = make_job()
    Job.objects.update(completed_at=timezone.now() - WEEK - timedelta(seconds=1))
    Subscription.objects.all().delete()

    # I expect no job without a callback
    with pytest.raises(JobNotFound):
        rerun.run_again(job.pk, "b", WEEK)
    assert Job.objects.get() == job
