"""A session of the admin is found by its cookie only, not by anything that the database has."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from orchestrator_site.browsers.sessions import SessionStore

pytestmark = pytest.mark.django_db

COOKIE = "sessionid"


@pytest.fixture
def user() -> User:
    return User.objects.create_superuser("operator", password="password")


def log_in(client: Client | None = None) -> Client:
    client = client or Client()
    answer = client.post("/admin/login/", {"username": "operator", "password": "password", "next": "/admin/"})
    assert answer.status_code == 302
    return client


def is_in(client: Client) -> bool:
    return client.get("/admin/password_change/").status_code == 200


def test_a_session_lasts_until_the_logout(user: User) -> None:
    client = log_in()
    assert is_in(client)
    client.post("/admin/logout/")
    assert not is_in(client)
    assert not Session.objects.exists()


def test_what_the_database_has_is_of_no_use(user: User) -> None:
    client = log_in()
    (row,) = Session.objects.all()
    assert client.cookies[COOKIE].value not in str(vars(row))
    thief = Client()
    thief.cookies[COOKIE] = row.session_key
    assert not is_in(thief)
    assert is_in(client)


def test_a_login_replaces_the_session_that_the_browser_had(user: User) -> None:
    # Given a browser with a session from before the login, whose key others may know
    before = SessionStore()
    before["a"] = "b"
    before.create()
    client = Client()
    client.cookies[COOKIE] = before.session_key
    known = client.cookies[COOKIE].value

    # When its user logs in, I expect another key, and the first one to be of no use
    log_in(client)
    assert client.cookies[COOKIE].value != known
    assert Session.objects.count() == 1
    assert SessionStore(known).load() == {}


def test_a_session_ends_when_it_expires(user: User) -> None:
    client = log_in()
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    assert not is_in(client)


def test_a_cookie_of_nobody_is_no_session(user: User) -> None:
    for key in ("", "a" * 32, "0" * 40, "é\0"):
        client = Client()
        client.cookies[COOKIE] = key
        assert not is_in(client)
