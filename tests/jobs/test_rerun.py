"""A job that is run again runs like the first one, with the same files and the same callback."""

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from callbacks.models import Event, Subscription
from jobs import rerun, services
from jobs.errors import IdTaken
from jobs.models import Job, new_uuid
from jobs.services import JobNotFound
from jobs.spec import CallbackSpec, InputSpec, JobSpec, OutputSpec
from jobs.states import InputType, OutputType, State
from tests.fake_engine import FakeEngine
from tests.helpers.factories import make_job
from tests.helpers.workers import Workers, completed

pytestmark = pytest.mark.django_db(transaction=True)

WEEK = timedelta(days=7)


def test_a_job_runs_again(engine: FakeEngine, workers: Workers) -> None:
    # Given a job with a file that has run
    file = InputSpec(id="file", type=InputType.FILE, path="dir/file", content=b"\0\xff", mode=0o755)
    job = make_job(id="a", inputs=(file,), environment={"A": "b"}, callback=CallbackSpec(url="http://127.0.0.1:9/", keys=("k",)))
    Subscription.objects.update(client="orch_key")
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
    assert list(Subscription.objects.values_list("owner", "client")) == [("default", "orch_key")] * 2
    assert [subscription.key for subscription in Subscription.objects.all()] == ["k", "k"]


def test_the_whole_description_is_taken_over() -> None:
    # Given a job with a value of its own in each member
    url, headers = "http://user:secret@h.example/p?q=secret", {"X": "secret"}
    spec = JobSpec(
        id="a",
        image="alpine:3",
        command=["echo", "a"],
        cpu_millis=250,
        memory_mib=128,
        timeout_seconds=7,
        environment={"A": "b"},
        meta={"customer": "acme"},
        workspace="/w",
        pull_policy="always",
        network="none",
        inputs=(
            InputSpec(id="i", type=InputType.FILE, path="in", mode=0o755, content=b"\0\xff"),
            InputSpec(id="j", type=InputType.DOWNLOAD, path="b", url=url, headers=headers, sha256="0" * 64),
        ),
        outputs=(
            OutputSpec(id="o", type=OutputType.UPLOAD, path="out", url=url, method="POST", headers=headers),
            OutputSpec(id="p", type=OutputType.EVENT, path="d"),
        ),
        callback=CallbackSpec(url=url, keys=("new", "old"), headers=headers, events=("orchestrator.job.exit",)),
    )

    # I expect the same description of the stored job
    assert rerun.spec_of(Job.objects.get(pk=services.create(spec).pk), "a") == spec


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
