"""The admin's pages of API keys and namespaces."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from jobs.running import claiming
from orchestrator_site.base.access import made_keys
from orchestrator_site.base.access.models import ApiKey, Namespace
from tests.helpers.factories import make_job, make_node, make_worker
from tests.helpers.keys import make_key

pytestmark = pytest.mark.django_db
ADD = "/admin/access/apikey/add/"


@pytest.fixture
def browser(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("admin"))
    Namespace.objects.get_or_create(name="default")
    return client


def add(browser: Client, **values: Any) -> Any:
    return browser.post(ADD, {"name": "ci", "namespace": "default", "expires_at_0": "", "expires_at_1": "", **values})


def key_in(answer: Any) -> str:
    found = re.search(r'value="(orch_[^"]+)"', answer.content.decode())
    assert found, answer.content.decode()
    return found[1]


def test_a_new_key_is_shown_once(browser: Client, caplog: pytest.LogCaptureFixture) -> None:
    # When a key is made
    answer = add(browser, read_only="on")
    key = key_in(answer)

    # I expect it to work as chosen, and to be in that answer alone
    row = made_keys.find(key.encode())
    assert row is not None
    assert (row.name, row.namespace_id, row.read_only, row.expires_at) == ("ci", "default", True, None)
    assert "no-store" in answer["Cache-Control"]
    secret = key.removeprefix(f"{row.prefix}_")  # which may contain a "_"
    for path in ("", f"{row.pk}/change/"):
        page = browser.get(f"/admin/access/apikey/{path}").content.decode()
        assert row.prefix in page
        assert secret not in page
        assert row.digest not in page
    stored = [*LogEntry.objects.values(), *(session.get_decoded() for session in Session.objects.all()), *ApiKey.objects.values()]
    assert secret not in f"{stored}{caplog.text}{browser.cookies}"
    assert LogEntry.objects.get().change_message == "Made for default, read-only"


def test_a_key_of_all_namespaces_has_to_be_chosen(browser: Client) -> None:
    assert '<option value="default" selected>' in browser.get(ADD).content.decode()
    row = made_keys.find(key_in(add(browser, namespace="")).encode())
    assert row is not None
    assert row.namespace_id is None
    assert "all namespaces" in browser.get("/admin/access/apikey/").content.decode()


def test_a_key_does_not_expire_in_the_past(browser: Client) -> None:
    def expiring(hours: int) -> Any:
        time = timezone.now() + timedelta(hours=hours)
        return add(browser, expires_at_0=f"{time:%Y-%m-%d}", expires_at_1=f"{time:%H:%M:%S}")

    assert "This time is over." in expiring(-1).content.decode()
    key_in(expiring(1))
    assert ApiKey.objects.get().expires_at is not None


def test_a_key_is_revoked_and_changed_in_no_other_way(browser: Client) -> None:
    key = make_key("default")
    row = ApiKey.objects.get()
    assert browser.post(f"/admin/access/apikey/{row.pk}/change/", {"name": "other"}).status_code == 403
    assert browser.post(f"/admin/access/apikey/{row.pk}/delete/", {"post": "yes"}).status_code == 403
    assert "Revoke" in browser.get(f"/admin/access/apikey/{row.pk}/change/").content.decode()
    browser.post(f"/admin/access/apikey/{row.pk}/revoke/", {"_form_submitted": "True"})
    with pytest.raises(made_keys.UnusableKey):
        made_keys.find(key.encode())
    assert "revoked" in browser.get(f"/admin/access/apikey/{row.pk}/change/").content.decode()


def test_who_may_only_look_makes_and_revokes_no_key(client: Client) -> None:
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_apikey"))
    client.force_login(user)
    make_key("default")
    row = ApiKey.objects.get()
    assert client.get("/admin/access/apikey/").status_code == 200
    assert add(client).status_code == 403
    client.post(f"/admin/access/apikey/{row.pk}/revoke/", {"_form_submitted": "True"})
    assert ApiKey.objects.filter(revoked_at=None).count() == 1


def test_a_namespace_keeps_its_name(browser: Client) -> None:
    assert browser.post("/admin/access/namespace/add/", {"name": "Team A"}).status_code == 200
    assert browser.post("/admin/access/namespace/add/", {"name": "team-a"}).status_code == 302
    assert browser.post("/admin/access/namespace/team-a/change/", {"name": "other"}).status_code == 302
    assert browser.post("/admin/access/namespace/team-a/delete/", {"post": "yes"}).status_code == 403
    assert set(Namespace.objects.values_list("name", flat=True)) == {"default", "team-a"}


def test_two_users_do_not_add_one_namespace(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a namespace that comes into being after the form was checked
    Namespace.objects.create(name="team-a", max_running=1)
    monkeypatch.setattr(Namespace, "validate_unique", lambda *_, **__: None)

    # When it is added, I expect the other one to stay as it is, and to be told
    answer = browser.post("/admin/access/namespace/add/", {"name": "team-a", "max_running": "100"}, follow=True)
    assert "Another user has just added a namespace with this name." in answer.content.decode()
    assert Namespace.objects.get(name="team-a").max_running == 1


def test_limits_of_a_namespace_are_set_and_shown_next_to_what_it_uses(browser: Client) -> None:
    # Given a namespace with a job that runs and one that waits
    node = make_node()
    Namespace.objects.create(name="team-a")
    for _ in range(2):
        make_job(namespace="team-a", cpu_millis=500)
    claiming.claim(node.pk, make_worker(node))

    # When limits are set, I expect them to count at once, and to be recorded and shown
    limits_of_a = {"max_running": "1", "max_cpu_millis": "4000", "max_memory_mib": "", "max_undecided": "5"}
    assert browser.post("/admin/access/namespace/team-a/change/", limits_of_a).status_code == 302
    assert claiming.claim(node.pk, make_worker(node)) is None
    for path in ("", "team-a/change/"):
        page = browser.get(f"/admin/access/namespace/{path}").content.decode()
        assert all(shown in page for shown in ("1 of 1", "0.5 of 4", "2 of 5", "64"))
    assert LogEntry.objects.get().change_message == "Changed max_running, max_cpu_millis, max_undecided"
    assert browser.post("/admin/access/namespace/team-a/change/", limits_of_a | {"max_running": "0"}).status_code == 200
