"""The groups that `migrate` creates, and what their members may do in the admin."""

from contextlib import suppress
from typing import Any
from unittest.mock import Mock

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.test import Client

from jobs.models import Node
from orchestrator_site import roles
from tests.helpers.factories import make_job, make_node

pytestmark = pytest.mark.django_db


def migrate(*arguments: str, **options: Any) -> None:
    call_command("migrate", *arguments, verbosity=0, **options)


def permissions(name: str) -> set[str]:
    return set(Group.objects.get(name=name).permissions.values_list("codename", flat=True))


def member(group: str) -> Client:
    user = User.objects.create_user(group.lower(), is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture(autouse=True)
def migrated(db: None) -> None:
    Group.objects.all().delete()
    migrate()


def test_operators_may_act_and_viewers_only_look() -> None:
    operators, viewers = permissions(roles.OPERATORS), permissions(roles.VIEWERS)
    assert {name for name in viewers if not name.startswith("view_")} == set()
    assert viewers >= {"view_job", "view_node", "view_event", "view_attempt", "view_destination", "view_logentry"}
    assert operators - viewers == {"change_job", "change_node", "change_destination", "change_subscription", "change_event"}
    assert not {name for name in operators if "user" in name or "group" in name or "session" in name}


@pytest.mark.parametrize(("group", "drained"), [(roles.OPERATORS, True), (roles.VIEWERS, False)])
def test_members_see_every_page_and_only_operators_act(group: str, drained: bool) -> None:
    # Given a member of a group
    node = make_node()
    job = make_job(id="a")
    browser = member(group)

    # I expect the pages to be shown, and nothing to be added, edited or deleted
    for path in ("", "jobs/job/", f"jobs/job/{job.pk}/change/", "jobs/node/", f"jobs/node/{node.pk}/change/", "admin/logentry/"):
        assert browser.get(f"/admin/{path}").status_code == 200, path
    for path in ("auth/user/", "jobs/job/add/", f"jobs/job/{job.pk}/delete/"):
        assert browser.get(f"/admin/{path}").status_code == 403, path
    assert browser.post(f"/admin/jobs/node/{node.pk}/change/", {"name": "b"}).status_code == 403

    # When it drains the node, I expect that only of an operator
    assert (b">Drain<" in b"".join(browser.get(f"/admin/jobs/node/{node.pk}/change/").content.split())) == drained
    browser.post(f"/admin/jobs/node/{node.pk}/drain/", {"_form_submitted": "True"})
    assert Node.objects.get().drained == drained
    assert LogEntry.objects.exists() == drained


def test_what_an_administrator_changed_stays() -> None:
    # Given an administrator who took a permission from a group and gave it another
    group = Group.objects.get(name=roles.OPERATORS)
    group.permissions.remove(Permission.objects.get(codename="change_node"))
    group.permissions.add(Permission.objects.get(codename="add_user"))

    # When migrations run again, I expect no change
    before = permissions(roles.OPERATORS)
    migrate()
    assert permissions(roles.OPERATORS) == before


def test_a_permission_of_a_new_page_is_granted() -> None:
    # Given a release that did not know destinations
    Permission.objects.filter(codename__endswith="_destination").delete()

    # When the next one migrates, and creates their permissions, I expect both groups to get theirs
    migrate()
    assert {"view_destination", "change_destination"} <= permissions(roles.OPERATORS)
    assert "view_destination" in permissions(roles.VIEWERS)
    assert "change_destination" not in permissions(roles.VIEWERS)


@pytest.mark.parametrize("named", [(), ("callbacks",)])
def test_an_interrupted_migration_is_completed_by_the_next(monkeypatch: pytest.MonkeyPatch, named: tuple[str, ...]) -> None:
    # Given a release that did not know destinations, and a `migrate` of the next one that is killed before it grants
    # permissions, or one of a single app
    Permission.objects.filter(codename__endswith="_destination").delete()
    with monkeypatch.context() as patch, suppress(InterruptedError):
        patch.setattr(roles, "_operating", Mock(side_effect=InterruptedError))
        migrate(*named)

    # When it runs again, I expect the groups to get what is new
    migrate()
    assert {"view_destination", "change_destination"} <= permissions(roles.OPERATORS)
    assert "view_destination" in permissions(roles.VIEWERS)


def test_a_look_at_the_plan_creates_nothing() -> None:
    Group.objects.all().delete()
    migrate(plan=True)
    migrate(check_unapplied=True)
    migrate("jobs")
    assert not Group.objects.exists()
