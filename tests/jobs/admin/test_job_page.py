"""The page of a job shows what happened without secrets; operators can run the job again, cancel it and redeliver its events."""

import base64
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from callbacks.models import Attempt, Event, Subscription
from jobs import lifecycle, rerun
from jobs.errors import ErrorCode, IdTaken
from jobs.models import Job
from jobs.rerun import spec_of
from jobs.spec import CallbackSpec, InputSpec, OutputSpec
from jobs.states import InputType, OutputType, Reason, State
from tests.helpers.factories import STARTED_AT, claimed, make_job

pytestmark = pytest.mark.django_db

CANARY = "canary-5e1f"
ENCODED = base64.b64encode(CANARY.encode()).decode()
PARTS = ("change/", "state/", "log/", "events/", "events/?state=dead", "history/", "run_again/", "cancel/")


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("olga"))
    return client


@pytest.fixture
def viewer(client: Client) -> Client:
    user = User.objects.create_user("victor", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client.force_login(user)
    return client


@pytest.fixture
def job() -> Job:
    """With a secret wherever there may be one."""
    url = f"http://user:{CANARY}@files.example/path?sig={CANARY}"
    return make_job(
        id="a",
        command=["echo", CANARY],
        environment={"TOKEN": CANARY},
        meta={"customer": "acme"},
        inputs=(
            InputSpec(id="config", type=InputType.FILE, path="in.txt", content=CANARY.encode(), mode=0o600),
            InputSpec(id="data", type=InputType.DOWNLOAD, path="b", url=url, headers={"X": CANARY}, sha256="0" * 64),
        ),
        outputs=(
            OutputSpec(id="report", type=OutputType.UPLOAD, path="c", url=url, method="POST", headers={"X": CANARY}),
            OutputSpec(id="summary", type=OutputType.EVENT, path="d"),
        ),
        callback=CallbackSpec(url=url, keys=(CANARY, f"{CANARY}-2"), headers={"X": CANARY}, events=("orchestrator.job.exit",)),
    )


def get(client: Client, job: Job, end: str = "change/") -> str:
    answer = client.get(f"/admin/jobs/job/{job.pk}/{end}")
    assert answer.status_code == 200, (end, answer.content[:500])
    return answer.content.decode()


def press(client: Client, job: Job, button: str, **fields: object) -> Any:
    """Submit the dialog of a button."""
    return client.post(f"/admin/jobs/job/{job.pk}/{button}/", {"_form_submitted": "True", **fields})


def end_with_failure(job: Job) -> None:
    """Let the job fail in the middle of its outputs."""
    claim = claimed(job)
    for item in job.inputs.all():
        lifecycle.input_done(claim, item, 1024, "starting", 0.1)
    lifecycle.report_prepared(claim, "starting")
    lifecycle.started(claim, STARTED_AT)
    lifecycle.decide(claim, State.FAILED, Reason.EXIT_CODE, "exit code 3", exit_code=3, ended=timezone.now())
    lifecycle.exited(claim, 3)
    lifecycle.output_failed(claim, job.outputs.get(name="report"), ErrorCode.ARTIFACT_NOT_FOUND, 'no file at "c"', 0.1)


def dead_event() -> Event:
    """Let the only event be dead."""
    Event.objects.update(state=Event.State.DEAD, tries=10, settled_at=timezone.now())
    event = Event.objects.get()
    Attempt.objects.create(
        event=event, time=timezone.now(), status=503, latency_ms=17, error="answered 503", answer="<b>busy</b>"
    )
    return event


# -- what it shows ---------------------------------------------------------------------------------------


def test_the_page_says_what_happened(viewer: Client, job: Job) -> None:
    # Given a job that failed, whose event could not be delivered
    end_with_failure(job)
    dead_event()

    # When its page is opened
    page = get(viewer, job)

    # I expect the reason, the steps, files, limits and events in words
    for shown in (
        "Its process ended with exit code 3",
        "Look at its node, node",
        "Container and inputs",
        "1 requested",
        "64 MiB requested",
        "meta.customer",
        "sent with the job",
        "from http://files.example/path",
        "to http://files.example/path",
        "1 KiB",
        "no file at &quot;c&quot;",
        "Only events of the type <code>orchestrator.job.exit</code> are",
        "with headers of the client",
        "503 after 17 ms",
        "&lt;b&gt;busy&lt;/b&gt;",
    ):
        assert shown in page


def test_the_page_shows_what_the_job_used_next_to_its_limits(viewer: Client, job: Job) -> None:
    # Given a job that used half of its cpu for 10 s, and a quarter of its memory
    end_with_failure(job)
    Job.objects.update(
        cpu_seconds=5.0, peak_memory_bytes=16 * 1024**2, started_at=STARTED_AT, finished_at=STARTED_AT + timedelta(seconds=10)
    )

    # I expect both
    page = get(viewer, job)
    assert "5.0 s of CPU time, 0.5 of 1 on average" in page
    assert "at most 16 MiB of 64 MiB" in page
    for percent in ("50.0", "25.0"):
        assert f'style="width: {percent}%"' in page

    # When it was so short that most of it is the start of the container, I expect no average
    Job.objects.update(cpu_seconds=0.03, finished_at=STARTED_AT + timedelta(milliseconds=5))
    assert "of CPU time, with the start of its container; 1 requested" in get(viewer, job)


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("job", "to a URL that cannot be decrypted with ENCRYPTION_KEYS"),
        ("event", "not sent: the URL cannot be decrypted"),
        ("subscription", "a URL that cannot be decrypted with ENCRYPTION_KEYS"),
    ],
)
def test_a_job_whose_secrets_cannot_be_decrypted_is_shown(
    operator: Client, job: Job, settings: Any, page: str, said: str
) -> None:
    # Given a job that failed, whose event was not sent because ENCRYPTION_KEYS were lost
    end_with_failure(job)
    event = dead_event()
    Attempt.objects.update(error="not sent: the URL cannot be decrypted")
    key = base64.urlsafe_b64encode(bytes(32)).decode()
    settings.CONFIGURATION = replace(settings.CONFIGURATION, encryption_keys=(key,))

    # I expect the pages to say so
    paths = {"job": f"jobs/job/{job.pk}", "event": f"callbacks/event/{event.pk}"}
    path = paths.get(page, f"callbacks/subscription/{event.subscription_id}")
    content = operator.get(f"/admin/{path}/change/").content.decode()
    assert said in content
    assert operator.get(f"/admin/{path.rpartition('/')[0]}/").status_code == 200

    # When the job is run again, I expect no job without its secrets
    press(operator, job, "run_again", new_id=uuid4())
    assert "It was not run again: its secrets cannot be decrypted" in get(operator, job)
    assert Job.objects.count() == 1


def test_no_part_of_the_page_shows_a_secret(operator: Client, job: Job) -> None:
    # Given a job that waits, which then fails and is run again
    def expect_no_secret(job: Job) -> None:
        for part in PARTS:
            page = get(operator, job, part)
            assert CANARY not in page, part
            assert ENCODED not in page, part

    expect_no_secret(job)
    end_with_failure(job)
    press(operator, job, "run_again", new_id=uuid4())

    # I expect no secret in any part of their pages
    expect_no_secret(job)
    expect_no_secret(Job.objects.exclude(pk=job.pk).get())


def test_a_job_that_was_claimed_again_says_why_that_may_be(viewer: Client, job: Job) -> None:
    # Given a job that was put back because its node could not start it
    lifecycle.requeue(claimed(job))
    assert "Claimed" not in get(viewer, job)
    claimed(job)

    # I expect that as one of the causes
    assert "2 times: its start failed, or its worker stopped or died" in get(viewer, job)


def test_what_clients_send_is_shown_as_text(viewer: Client) -> None:
    # Given a job with markup in each member that is shown
    markup = "<script>alert(1)</script>"
    paths = {"id": markup, "path": markup}
    job = make_job(
        image=markup,
        meta={markup: markup},
        workspace=f"/{markup}",
        inputs=(InputSpec(type=InputType.DOWNLOAD, url=f"http://h/{markup}", **paths),),
    )
    claim = claimed(job)
    lifecycle.input_failed(claim, job.inputs.get(), ErrorCode.DOWNLOAD_FAILED, markup, 0.1)

    # I expect it to be escaped
    for part in ("change/", "state/"):
        page = get(viewer, job, part)
        assert "&lt;script&gt;alert(1)" in page
        assert markup not in page


def test_a_job_in_progress_is_looked_at_again(viewer: Client, job: Job) -> None:
    # Given a page that asks again while something is unfinished
    assert f'data-refresh="/admin/jobs/job/{job.pk}/state/"' in get(viewer, job)

    def is_unfinished(part: str) -> bool:
        return re.search(rf'<div id="{part}"[^>]* data-unfinished', get(viewer, job, "state/")) is not None

    # I expect that of the state until the job is complete, and of the events until all are delivered
    assert (is_unfinished("job-state"), is_unfinished("job-events")) == (True, False)
    end_with_failure(job)
    assert (is_unfinished("job-state"), is_unfinished("job-events")) == (True, True)
    Job.objects.update(completed_at=timezone.now())
    assert (is_unfinished("job-state"), is_unfinished("job-events")) == (False, True)
    Subscription.objects.update(next_attempt_at=None)
    assert (is_unfinished("job-state"), is_unfinished("job-events")) == (False, False)


def test_a_refresh_keeps_the_choice_of_events(viewer: Client, job: Job) -> None:
    end_with_failure(job)
    assert "orchestrator.job.exit</a>" in get(viewer, job, "state/?state=pending")
    part = get(viewer, job, "state/?state=dead&after=3")
    assert "orchestrator.job.exit</a>" not in part
    assert 'data-query="state=dead&amp;after=3"' in part


def test_the_page_makes_few_queries(viewer: Client, job: Job, django_assert_max_num_queries: Any) -> None:
    end_with_failure(job)
    with django_assert_max_num_queries(20):
        get(viewer, job)


# -- run again -------------------------------------------------------------------------------------------


def described(job: Job) -> Any:
    """Return all that a client has said about a job, except its id."""
    return spec_of(Job.objects.get(pk=job.pk), "")


def test_a_job_is_run_again(operator: Client, job: Job, caplog: pytest.LogCaptureFixture) -> None:
    # Given a job that failed
    caplog.set_level("INFO")
    end_with_failure(job)

    # When an operator runs it again
    answer = press(operator, job, "run_again", new_id=uuid4())

    # I expect a new job with the same description, secrets included, and its page
    again = Job.objects.exclude(pk=job.pk).get()
    assert answer["HX-Redirect"] == f"/admin/jobs/job/{again.pk}/change/"
    assert (again.status, again.node, again.exit_code, again.started_at) == (State.ACCEPTED, None, None, None)
    assert again.id != job.id
    assert described(again) == described(job)
    assert described(again).environment == {"TOKEN": CANARY}
    assert described(again).callback.keys == (CANARY, f"{CANARY}-2")
    assert described(again).inputs[0].content == CANARY.encode()

    # and the history of both to say who did it
    entries = LogEntry.objects.values_list("user__username", "object_id", "change_message")
    assert set(entries) == {
        ("olga", str(job.pk), f"Run again as {again.id}"),
        ("olga", str(again.pk), "Created by running a again"),
    }
    said: list[Any] = [record for record in caplog.records if hasattr(record, "user")]
    assert {(record.object, record.user) for record in said} == {(job.id, "olga"), (again.id, "olga")}


def test_the_dialog_says_what_it_will_do(operator: Client, job: Job) -> None:
    page = get(operator, job, "run_again/")
    assert "new job with a new id" in page
    assert "without being shown" in page
    assert Job.objects.count() == 1


def test_a_dialog_that_is_sent_twice_makes_one_job(operator: Client, job: Job) -> None:
    new_id = uuid4()
    answers = [press(operator, job, "run_again", new_id=new_id) for _ in range(2)]
    assert Job.objects.count() == 2
    assert answers[0]["HX-Redirect"] == answers[1]["HX-Redirect"]


def test_a_dialog_that_is_sent_twice_at_once_makes_one_job(operator: Client, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a request that is overtaken by a second one with the same id
    run_again = rerun.run_again

    def overtaken(*arguments: Any) -> Job:
        run_again(*arguments)
        raise IdTaken("a job with this id already exists")

    monkeypatch.setattr(rerun, "run_again", overtaken)
    answer = press(operator, job, "run_again", new_id=uuid4())

    # I expect it to open the page of the job that the second one made, not to say that there is none
    made = Job.objects.exclude(pk=job.pk).get()
    assert answer["HX-Redirect"] == f"/admin/jobs/job/{made.pk}/change/"
    assert "It was not run again" not in get(operator, made)


@pytest.mark.parametrize("fields", [{}, {"new_id": "../x"}, {"new_id": "b"}])
def test_the_id_of_the_new_job_is_a_uuid(operator: Client, job: Job, fields: dict[str, str]) -> None:
    assert "HX-Redirect" not in press(operator, job, "run_again", **fields)
    assert Job.objects.count() == 1


def test_a_job_that_is_being_deleted_is_not_run_again(operator: Client, job: Job) -> None:
    # Given a job whose JOB_RETENTION is over: its callback may be deleted already
    long_ago = timezone.now() - timedelta(seconds=settings.CONFIGURATION.job_retention + 1)
    Job.objects.update(status=State.COMPLETED, completed_at=long_ago)

    # When it is run again from a page that was opened before
    press(operator, job, "run_again", new_id=uuid4())

    # I expect no job without a part of the description
    assert Job.objects.count() == 1
    assert "It was not run again" in get(operator, job)


# -- cancel ----------------------------------------------------------------------------------------------


def test_a_job_is_cancelled(operator: Client, job: Job) -> None:
    answer = press(operator, job, "cancel")
    assert answer["HX-Redirect"] == f"/admin/jobs/job/{job.pk}/change/"
    job.refresh_from_db()
    assert job.status == State.CANCELLED
    assert LogEntry.objects.get().change_message == "Cancelled"
    assert "The job was cancelled." in get(operator, job)


def test_a_complete_job_cannot_be_cancelled(operator: Client, job: Job) -> None:
    # Given a job whose page was opened before it ended
    lifecycle.cancel(job.pk)

    # I expect no button, and the old one to change nothing
    assert f"/admin/jobs/job/{job.pk}/cancel/" not in get(operator, job)
    press(operator, job, "cancel")
    assert "nothing left to cancel" in get(operator, job)
    assert not LogEntry.objects.exists()


# -- redelivery ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", [True, False])
def test_dead_events_are_redelivered(operator: Client, job: Job, one: bool) -> None:
    end_with_failure(job)
    event = dead_event()
    address = f"/admin/jobs/job/{job.pk}/events/{f'{event.pk}/' if one else ''}redeliver/"
    answer: Any = operator.post(address)
    assert answer["Location"] == f"/admin/jobs/job/{job.pk}/change/#events"
    assert Event.objects.get().state == Event.State.PENDING
    assert LogEntry.objects.get().change_message == ("Redelivered event 1" if one else "Redelivered the dead events")


def test_it_is_said_why_nothing_is_redelivered(operator: Client, job: Job) -> None:
    end_with_failure(job)
    operator.post(f"/admin/jobs/job/{job.pk}/events/redeliver/")
    assert "Nothing is sent again: the job has no dead events." in get(operator, job)


@pytest.mark.parametrize("button", ["run_again", "cancel"])
def test_a_job_that_was_deleted_cannot_be_acted_on(operator: Client, job: Job, button: str) -> None:
    # Given a page of a job that is deleted meanwhile
    uuid = job.pk
    job.delete()

    # When its button is pressed, I expect the list and a message
    answer = operator.post(f"/admin/jobs/job/{uuid}/{button}/", {"_form_submitted": "True", "new_id": uuid4()})
    assert answer["HX-Redirect"] == "/admin/jobs/job/"
    assert "Nothing was done: the job was deleted meanwhile." in operator.get("/admin/jobs/job/").content.decode()
    assert not LogEntry.objects.exists()


def test_an_event_of_another_job_is_not_redelivered(operator: Client, job: Job) -> None:
    end_with_failure(job)
    event = dead_event()
    other = make_job(callback=None)
    assert operator.post(f"/admin/jobs/job/{other.pk}/events/{event.pk}/redeliver/").status_code == 404
    assert Event.objects.get().state == Event.State.DEAD
    assert not LogEntry.objects.exists()


# -- who may do what -------------------------------------------------------------------------------------


def test_viewers_see_no_buttons_and_cannot_act(viewer: Client, job: Job) -> None:
    # Given a user who may view everything
    end_with_failure(job)
    event = dead_event()
    page = get(viewer, job)
    for button in ("run_again", "cancel", "redeliver"):
        assert f"{button}/" not in page

    # When they act all the same, I expect nothing to happen
    for end in ("run_again/", "cancel/", "events/redeliver/", f"events/{event.pk}/redeliver/"):
        answer = viewer.post(f"/admin/jobs/job/{job.pk}/{end}", {"_form_submitted": "True", "new_id": uuid4()})
        assert answer.status_code == 403, end
    assert Job.objects.count() == 1
    assert Event.objects.get().state == Event.State.DEAD


def test_who_may_not_see_jobs_sees_no_part_of_the_page(client: Client, job: Job) -> None:
    # Given a user who may see everything but jobs
    user = User.objects.create_user("other", is_staff=True)
    user.user_permissions.set(Permission.objects.exclude(codename__endswith="_job"))
    client.force_login(user)

    # I expect each part to be refused, and without a login the page of the login
    for part in (*PARTS, "log.txt"):
        assert client.get(f"/admin/jobs/job/{job.pk}/{part}").status_code == 403, part
    client.logout()
    for part in (*PARTS, "log.txt"):
        assert client.get(f"/admin/jobs/job/{job.pk}/{part}").headers["Location"].startswith("/admin/login/"), part


@pytest.mark.parametrize(
    ("end", "action", "recorded"),
    [
        ("run_again/", "jobs.rerun.run_again", "Run again as"),
        ("cancel/", "jobs.services.cancel_remaining", "Cancelled"),
        ("events/redeliver/", "callbacks.operators.redelivery.redeliver_dead", "Redelivered the dead events"),
        ("events/{event}/redeliver/", "callbacks.operators.redelivery.redeliver", "Redelivered event 1"),
    ],
)
def test_an_action_is_recorded_before_it_is_done(
    operator: Client, job: Job, monkeypatch: pytest.MonkeyPatch, end: str, action: str, recorded: str
) -> None:
    # Given a process that is killed during an action
    end_with_failure(job)
    event = dead_event()
    monkeypatch.setattr(action, lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        operator.post(f"/admin/jobs/job/{job.pk}/{end.format(event=event.pk)}", {"_form_submitted": "True", "new_id": uuid4()})

    # I expect it to be recorded
    assert LogEntry.objects.get().change_message.startswith(recorded)


def test_nothing_happens_on_get(operator: Client, job: Job) -> None:
    end_with_failure(job)
    event = dead_event()
    for end in ("run_again/", "cancel/", "events/redeliver/", f"events/{event.pk}/redeliver/"):
        operator.get(f"/admin/jobs/job/{job.pk}/{end}?_form_submitted=True&new_id={uuid4()}")
    assert Job.objects.count() == 1
    assert Event.objects.get().state == Event.State.DEAD


def test_who_may_not_see_events_sees_the_rest(client: Client, job: Job) -> None:
    user = User.objects.create_user("other", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_job"))
    client.force_login(user)
    page = get(client, job)
    assert "You may not see events." in page
    assert "files.example/path" in page  # of an input
    assert client.post(f"/admin/jobs/job/{job.pk}/events/redeliver/").status_code == 403
