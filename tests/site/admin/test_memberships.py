"""A user of one namespace sees and changes its jobs in the admin, and nothing else."""

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import transaction
from django.test import Client
from django.urls import reverse

from callbacks import outbox
from callbacks.models import Event
from jobs.admin import job_table
from jobs.models import Job, new_uuid
from orchestrator_site.base.memberships.models import Membership
from tests.helpers.api_calls import store_lines
from tests.helpers.factories import make_job, make_node, make_worker
from tests.helpers.keys import make_key, make_namespace

pytestmark = pytest.mark.django_db
CANARY = "canary-of-b"


def with_event(namespace: str, name: str) -> Job:
    """Store a job with a log, and an event that is dead."""
    job = make_job(namespace=namespace, id=name, image=name)
    store_lines(job, name)
    with transaction.atomic():
        outbox.publish(job.uuid, "orchestrator.job.start", name, {})
    Event.objects.filter(subscription__stream=job.uuid).update(state=Event.State.DEAD)
    return job


@pytest.fixture
def jobs() -> dict[str, Job]:
    for name in "ab":
        make_namespace(name)
    return {"a": with_event("a", "mine-1234"), "b": with_event("b", CANARY)}


@pytest.fixture
def member(client: Client, jobs: dict[str, Job]) -> Client:
    """A user of namespace a, with every permission there is."""
    user = User.objects.create_user("member", is_staff=True)
    user.user_permissions.set(Permission.objects.all())
    Membership.objects.create(user=user, namespace_id="a")
    client.force_login(user)
    return client


def addresses(job: Job) -> dict[str, str]:
    """Return the addresses of the pages of a job, and those to post to."""
    event = Event.objects.get(subscription__stream=job.uuid)
    names = ("state", "log", "log_file", "events", "redeliver_dead")
    found = {name: reverse(f"admin:jobs_job_{name}", args=[job.pk]) for name in names}
    page = reverse("admin:jobs_job_change", args=[job.pk])
    return found | {
        "page": page,
        "history": reverse("admin:jobs_job_history", args=[job.pk]),
        "redeliver": reverse("admin:jobs_job_redeliver", args=[job.pk, event.pk]),
        "cancel": page.replace("change/", "cancel/"),
        "run_again": page.replace("change/", "run_again/"),
    }


def body(answer: Any) -> str:
    return b"".join(answer).decode() if answer.streaming else str(answer.content.decode())


def test_the_list_has_the_jobs_of_the_namespace_whatever_the_filters(member: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_table, "_MATCHES", 1)  # with several filters: the newest job is one of the other namespace
    several = "status__exact=accepted&node__isnull=True"
    matching = ("", "status__exact=accepted", "q=mine-1234", "namespace=a", "node__isnull=True", several)
    for query in (*matching, "status__exact=accepted&q=m%3Dx"):
        page = body(member.get(f"/admin/jobs/job/?{query}"))
        assert CANARY not in page, query
        assert ("mine-1234" in page) == (query in matching), query
    for query in (f"q={CANARY}", "namespace=b", "namespace=b&status__exact=accepted", f"namespace=b&q={CANARY}"):
        answer = member.get(f"/admin/jobs/job/?{query}")
        assert {job.namespace for job in answer.context["cl"].result_list} <= {"a"}, query


def test_the_pages_of_a_job_are_those_of_the_namespace(member: Client, jobs: dict[str, Job]) -> None:
    # I expect every page of a job of the namespace, with its events
    own = addresses(jobs["a"])
    for name in ("page", "state", "log", "log_file", "events"):
        answer = member.get(own[name])
        assert answer.status_code == 200, name
        assert "mine-1234" in body(answer) or "orchestrator.job.start" in body(answer), name

    # and of another job none, neither to see nor to post to
    before = list(Job.objects.filter(pk=jobs["b"].pk).values()) + list(Event.objects.filter(source=CANARY).values())
    for name, address in addresses(jobs["b"]).items():
        seen, done = member.get(address), member.post(address, {"_form_submitted": "True", "new_id": new_uuid()})
        assert seen.status_code != 200 or name in ("cancel", "run_again"), name  # which are dialogs, the same for all jobs
        assert done.status_code != 200 or "HX-Redirect" in done, name
        assert CANARY not in body(seen) + body(done), name
    assert list(Job.objects.filter(pk=jobs["b"].pk).values()) + list(Event.objects.filter(source=CANARY).values()) == before
    assert Job.objects.count() == 2


def test_a_job_of_the_namespace_is_cancelled_and_its_events_are_redelivered(member: Client, jobs: dict[str, Job]) -> None:
    own = addresses(jobs["a"])
    member.post(own["redeliver_dead"])
    assert Event.objects.get(source="mine-1234").state == Event.State.PENDING
    member.post(own["cancel"], {"_form_submitted": "True"})
    assert Job.objects.get(pk=jobs["a"].pk).status == "cancelled"


def test_no_other_page_is_shown(member: Client) -> None:
    make_worker(make_node())
    make_key("b", name=CANARY)
    for model in admin.site._registry:
        if model is Job:
            continue
        for name in ("changelist", "add"):
            answer = member.get(reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}"))
            assert answer.status_code == 403, (model, name)
    index = body(member.get("/admin/"))
    assert "Jobs" in index
    assert "Needs attention" not in index
    assert not any(title in index for title in ("Nodes", "Destinations", "API keys", CANARY))
    assert member.get("/admin/live/").status_code == member.get("/admin/charts/").status_code == 403


def test_a_superuser_and_a_user_without_a_namespace_see_all(client: Client, jobs: dict[str, Job]) -> None:
    superuser = User.objects.create_superuser("super")
    Membership.objects.create(user=superuser, namespace_id="a")
    operator = User.objects.create_user("operator", is_staff=True)
    operator.user_permissions.add(Permission.objects.get(codename="view_job"))
    for user in (superuser, operator):
        client.force_login(user)
        assert CANARY in body(client.get("/admin/jobs/job/"))
        assert client.get(addresses(jobs["b"])["log_file"]).status_code == 200


def test_a_namespace_is_chosen_on_the_page_of_a_user(client: Client, jobs: dict[str, Job]) -> None:
    client.force_login(User.objects.create_superuser("super"))
    user = User.objects.create_user("member", is_staff=True)
    page = f"/admin/auth/user/{user.pk}/change/"
    assert "Namespace" in body(client.get(page))
    formset = {"TOTAL_FORMS": 1, "INITIAL_FORMS": 0, "0-namespace": "b", "0-user": user.pk}
    form = {"username": "member", "is_active": "on", "is_staff": "on", "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    answer = client.post(page, form | {f"membership-{name}": value for name, value in formset.items()})
    assert answer.status_code == 302, body(answer)
    assert Membership.objects.get().namespace_id == "b"
