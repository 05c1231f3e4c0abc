"""The admin pages of jobs: read-only, without secrets, with labels in words."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from jobs.models import Job
from jobs.spec import CallbackSpec, InputSpec, OutputSpec
from jobs.states import InputType, OutputType
from tests.helpers.factories import make_job, make_node, make_worker

CANARY = "canary-77aa"


@pytest.fixture
def operator(client: Client, db: None) -> Client:
    client.force_login(User.objects.create_superuser("operator"))
    return client


@pytest.fixture
def job(db: None) -> Job:
    """With a secret wherever there may be one."""
    return make_job(
        id="a",
        environment={"TOKEN": CANARY},
        inputs=(
            InputSpec(id="i1", type=InputType.FILE, path="in.txt", content=CANARY.encode()),
            InputSpec(id="i2", type=InputType.DOWNLOAD, path="b", url=f"http://h/?sig={CANARY}", headers={"X": CANARY}),
        ),
        outputs=(OutputSpec(id="o1", type=OutputType.UPLOAD, path="c", url=f"http://h/?sig={CANARY}", headers={"X": CANARY}),),
        callback=CallbackSpec(url=f"http://h/?sig={CANARY}", keys=(CANARY, CANARY), headers={"X": CANARY}),
    )


def test_a_job_is_shown_without_secrets(operator: Client, job: Job) -> None:
    answer = operator.get(f"/admin/jobs/job/{job.pk}/change/")
    assert answer.status_code == 200
    page = answer.content.decode()
    for shown in ("alpine:latest", "i1", "i2", "o1", "in.txt"):
        assert shown in page
    assert CANARY not in page
    assert "Q0FOQVJZ" not in page  # nor as base64
    assert 'name="_save"' not in page


def test_lists_are_shown_without_secrets(operator: Client, job: Job) -> None:
    node = make_node("n1")
    make_worker(node)
    for path, shown in (("job/", "alpine:latest"), ("job/?q=a", "alpine:latest"), ("node/", "n1"), ("worker/", "host")):
        answer = operator.get(f"/admin/jobs/{path}")
        assert answer.status_code == 200
        assert shown in answer.content.decode()
        assert CANARY not in answer.content.decode()
    assert operator.get(f"/admin/jobs/node/{node.pk}/change/").status_code == 200


def test_times_are_shown_to_the_second(operator: Client, job: Job) -> None:
    page = operator.get("/admin/jobs/job/").content.decode()
    assert job.created_at.strftime("%Y-%m-%d %H:%M:%S UTC") in page


def test_an_operator_can_create_another_operator(operator: Client) -> None:
    # When an operator fills in the form for a new user
    form = {"username": "second", "password1": "a-long-passphrase-77", "password2": "a-long-passphrase-77"}
    page = operator.get("/admin/auth/user/add/")
    of_namespace = {"membership-TOTAL_FORMS": "0", "membership-INITIAL_FORMS": "0"}
    answer = operator.post("/admin/auth/user/add/", form | of_namespace | {"usable_password": "true"})

    # I expect the form in the looks of the admin, and a user who can log in
    assert "border-base-200" in str(page.context["adminform"].form["username"])
    assert answer.status_code == 302
    assert Client().login(username="second", password="a-long-passphrase-77")


def test_nothing_can_be_changed(operator: Client, job: Job) -> None:
    for path in ("add/", f"{job.pk}/delete/"):
        assert operator.get(f"/admin/jobs/job/{path}").status_code == 403
    assert operator.post(f"/admin/jobs/job/{job.pk}/change/", {"status": "failed"}).status_code == 403
    job.refresh_from_db()
    assert job.status == "accepted"


def test_inputs_outputs_and_logs_have_no_pages(operator: Client) -> None:
    for model in ("logchunk", "input", "output"):
        assert operator.get(f"/admin/jobs/{model}/").status_code == 404


@pytest.mark.django_db
def test_the_admin_requires_a_staff_login(client: Client) -> None:
    answer = client.get("/admin/jobs/job/")
    assert answer.status_code == 302
    assert "/admin/login/" in answer["Location"]


def test_labels_are_not_column_names(operator: Client, job: Job) -> None:
    page = operator.get(f"/admin/jobs/job/{job.pk}/change/").content.decode()
    assert "Waiting for a node" in page
    assert "64 MiB requested" in page
    for column in ("Cpu millis", "Memory mib", "Wants logs", "Uuid"):
        assert column not in page
