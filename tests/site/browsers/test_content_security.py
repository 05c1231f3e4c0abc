"""Pages have a Content Security Policy and comply with it."""

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse

from callbacks.models import Destination, Event, Subscription
from jobs.models import Job, Node, Worker
from orchestrator_site.base.access.models import ApiKey, Namespace
from tests.callbacks.test_admin import event
from tests.helpers.factories import make_job, make_node, make_worker
from tests.helpers.keys import make_key

pytestmark = pytest.mark.django_db
__all__ = ["event"]

INDEPENDENT = ("index", "password_change", "password_change_done", "search", "jsi18n")
PARTS = ("live", "charts")  # of the start page
BUTTONS = {
    Job: ("run_again", "cancel", "state", "events"),
    Destination: ("pause", "resume", "reset", "redeliver"),
    Subscription: ("redeliver_dead",),
    Event: ("redeliver",),
    ApiKey: ("revoke",),
}


@pytest.fixture
def operator(client: Client, event: Event) -> Client:
    make_worker(make_node("n1"))
    make_job(id="a")
    make_key("team-a")
    group = Group.objects.create(name="group")
    user = User.objects.create_superuser("operator")
    LogEntry.objects.log_actions(user.pk, [group], CHANGE, "Changed")
    client.force_login(user)
    return client


def admin_pages() -> Iterator[str]:
    yield from (reverse(f"admin:{name}") for name in INDEPENDENT)
    yield from (reverse(f"admin-{name}") for name in PARTS)
    for label in ("jobs", "callbacks", "auth", "access"):
        yield reverse("admin:app_list", args=(label,))
    for model, options in admin.site._registry.items():
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        row: Any = model._default_manager.all()[0]
        yield reverse(f"{name}_changelist")
        if model is LogEntry:  # its rows have no pages
            continue
        yield reverse(f"{name}_change", args=(row.pk,))
        yield reverse(f"{name}_history", args=(row.pk,))
        if model in (User, Group, Namespace, ApiKey):
            yield reverse(f"{name}_add")
        if model in (User, Group):
            yield reverse(f"{name}_delete", args=(row.pk,))
        for button in BUTTONS.get(model, ()):
            yield f"{reverse(f'{name}_changelist')}{row.pk}/{button}/"
        assert options


def policy_of(answer: Any) -> dict[str, list[str]]:
    directives = [part.split() for part in answer["Content-Security-Policy"].split(";")]
    return {name: sources for name, *sources in directives}


class Page(HTMLParser):
    """Collects what a strict policy forbids: inline scripts, event handlers and files of other hosts."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.forbidden: list[str] = []
        self._is_script = False
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._is_script = tag == "script" and given.get("type") != "application/json"
        self.forbidden += [f"{tag} {name}" for name in given if name.startswith("on")]
        for name in ("src", "href", "action", "formaction", "data"):
            value = (given.get(name) or "").strip()
            loads = tag in ("script", "link", "img", "iframe", "form", "object", "embed", "source")
            if value.lower().startswith("javascript:") or (loads and "//" in value.partition("?")[0]):
                self.forbidden.append(f"{tag} {name}={value}")
        if tag in ("iframe", "object", "embed", "base"):
            self.forbidden.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._is_script = self._is_script and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._is_script and data.strip():
            self.forbidden.append(f"a script: {data.strip()[:80]}")


def expect_page(answer: Any) -> dict[str, list[str]]:
    """Return the policy of a page; check that it forbids frames and other hosts."""
    assert answer.status_code == 200, answer.content[:300]
    assert Page(answer.content.decode()).forbidden == []
    policy = policy_of(answer)
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == ["'none'"]
    assert policy["form-action"] == policy["connect-src"] == ["'self'"]
    assert (answer["X-Frame-Options"], answer["X-Content-Type-Options"]) == ("DENY", "nosniff")
    assert answer["Referrer-Policy"] == "same-origin"
    return policy


def test_every_page_of_the_admin_has_a_policy(operator: Client) -> None:
    assert {Job, Node, Worker, Destination, Event, Subscription} <= admin.site._registry.keys()
    for address in admin_pages():
        policy = expect_page(operator.get(address))
        assert policy["script-src"] == ["'self'", "'unsafe-eval'"], address


def test_the_login_page_has_a_policy(client: Client) -> None:
    assert "'unsafe-inline'" not in expect_page(client.get("/admin/login/"))["script-src"]


def test_the_documentation_page_has_a_policy(client: Client) -> None:
    # When I open it, I expect its scripts in files of their own
    answer = client.get("/v1/docs")
    assert expect_page(answer)["script-src"] == ["'self'"]
    assert 'src="/v1/docs?script="' in answer.content.decode()

    # and the script that starts it to load nothing from other hosts
    script = client.get("/v1/docs?script=")
    assert (script.status_code, script["Content-Type"].partition(";")[0]) == (200, "application/javascript")
    assert "/v1/openapi.json" in script.content.decode()
    assert '"validatorUrl": null' in script.content.decode()


@pytest.mark.parametrize("address", ["/v1/jobs", "/v1/openapi.json", "/v1/none", "/livez", "/nothing", "/", "//v1/jobs"])
def test_other_responses_may_load_nothing(client: Client, address: str) -> None:
    policy = policy_of(client.get(address))
    assert policy == {name: ["'none'"] for name in ("default-src", "base-uri", "form-action", "frame-ancestors")}


@pytest.mark.parametrize("address", ["/admin/none/", "/admin/jobs/job/?x=1"])
def test_errors_of_the_admin_have_a_policy(operator: Client, address: str) -> None:
    answer = operator.get(address)
    assert answer.status_code in (400, 404)
    assert "script-src" in policy_of(answer)
