"""DELETE /v1/jobs/<id>."""

import pytest
from django.db.models.functions import Now
from django.test import Client

from jobs.models import Job
from jobs.states import State
from tests.helpers.api_calls import expect_error
from tests.helpers.factories import make_job

pytestmark = pytest.mark.django_db


def test_an_accepted_job_is_cancelled_at_once(client: Client) -> None:
    make_job(id="a")
    answer = client.delete("/v1/jobs/a")
    assert (answer.status_code, answer.content, answer.get("Content-Type")) == (204, b"", None)
    body = client.get("/v1/jobs/a").json()
    assert (body["status"], body["reason"]) == ("cancelled", "cancelled")
    assert body["finishedAt"]


def test_a_job_can_be_cancelled_twice(client: Client) -> None:
    make_job(id="a")
    assert [client.delete("/v1/jobs/a").status_code for _ in range(2)] == [204, 204]


@pytest.mark.parametrize("status", [State.COMPLETED, State.FAILED])
def test_a_finished_job_keeps_its_status(client: Client, status: State) -> None:
    job = make_job(id="a")
    Job.objects.filter(pk=job.pk).update(status=status)
    assert client.delete("/v1/jobs/a").status_code == 204
    assert client.get("/v1/jobs/a").json()["status"] == status


def test_a_finished_job_keeps_its_result_and_its_outputs_are_cancelled(client: Client) -> None:
    # Given a job that has outputs left
    job = make_job(id="a")
    Job.objects.filter(pk=job.pk).update(status=State.FAILED, reason="exit_code", exit_code=3)

    # When it is deleted twice
    before = client.get("/v1/jobs/a").json()
    assert [client.delete("/v1/jobs/a").status_code for _ in range(2)] == [204, 204]

    # I expect the job to be unchanged, except that its outputs are cancelled
    assert client.get("/v1/jobs/a").json() == before
    job.refresh_from_db()
    assert job.outputs_cancelled_at is not None


def test_a_complete_job_is_not_changed(client: Client) -> None:
    job = make_job(id="a")
    Job.objects.filter(pk=job.pk).update(status=State.COMPLETED, completed_at=Now())
    assert client.delete("/v1/jobs/a").status_code == 204
    job.refresh_from_db()
    assert job.outputs_cancelled_at is None


def test_an_unknown_job_is_404(client: Client) -> None:
    expect_error(client.delete("/v1/jobs/nope"), 404)


def test_query_parameters_are_refused(client: Client) -> None:
    make_job(id="a")
    expect_error(client.delete("/v1/jobs/a?force=1"), 400, "force")
    assert client.get("/v1/jobs/a").json()["status"] == "accepted"
