"""Logins to the admin: how many there may be, and what a session is like."""

from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.test import Client

from orchestrator_site.admin import login
from orchestrator_site.base import broker
from orchestrator_site.base.access.throttles import Allowance, ProcessThrottle

pytestmark = pytest.mark.django_db
PASSWORD = "a long password of a test"


@pytest.fixture(autouse=True)
def counted_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count in this process, and check passwords of the user `olga`."""
    monkeypatch.setattr(broker, "evaluate", lambda *_: None)
    User.objects.create_superuser("olga", password=PASSWORD)


def log_in(client: Client, password: str = "wrong", user: str = "olga", address: str = "192.0.2.1") -> Any:
    return client.post("/admin/login/", {"username": user, "password": password}, REMOTE_ADDR=address)


def test_an_address_has_a_limited_number_of_tries_for_all_accounts(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "OF_ADDRESS", Allowance("test", login.OF_ADDRESS.burst, 1000))

    # When someone tries many passwords for several accounts, I expect only the first to be looked at
    found = [log_in(client, user=f"user{number}") for number in range(40)]
    assert [answer.status_code for answer in found] == [200] * login.OF_ADDRESS.burst + [429] * 30
    assert int(found[-1]["Retry-After"]) <= login.OF_ADDRESS.interval
    assert "too many logins" in found[-1].content.decode()

    # and not even the right one, until that time, but those from another address
    assert log_in(client, PASSWORD).status_code == 429
    assert log_in(client, PASSWORD, address="192.0.2.2").status_code == 302


@pytest.mark.parametrize("user", ["olga", "nobody"])
def test_an_account_has_a_limited_number_of_tries_from_all_addresses(
    client: Client, monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    monkeypatch.setattr(login, "OF_ACCOUNT", Allowance("test", 3, 1000))
    found = [
        log_in(client, user=name, address=f"192.0.2.{number}") for number, name in enumerate([user, user.upper(), user, user])
    ]
    assert [answer.status_code for answer in found] == [200, 200, 200, 429]
    assert log_in(client, user="other").status_code == 200


def test_an_address_alone_does_not_keep_an_account_from_logging_in() -> None:
    # Given an attacker who tries passwords of an account as often as one address may, for an hour
    now = 0.0
    throttle = ProcessThrottle(clock=lambda: now)
    for second in range(3600):
        now = float(second)
        throttle.spend([("the attacker's", login.OF_ADDRESS), ("olga", login.OF_ACCOUNT)])

    # When its owner logs in from another address, I expect that to be possible at once
    assert throttle.spend([("her own", login.OF_ADDRESS), ("olga", login.OF_ACCOUNT)]) == 0


def test_a_session_has_a_new_id_is_hidden_from_scripts_and_ends(client: Client) -> None:
    client.get("/admin/login/")
    log_in(client, PASSWORD)
    cookie = client.cookies[settings.SESSION_COOKIE_NAME]
    assert (cookie["httponly"], cookie["samesite"], cookie["max-age"]) == (True, "Lax", 12 * 3600)
    before = cookie.value
    client.post("/admin/logout/")
    log_in(client, PASSWORD)
    assert client.cookies[settings.SESSION_COOKIE_NAME].value != before


def test_an_old_password_cannot_be_guessed_with_a_session(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "OLD_PASSWORDS", Allowance("test", 3, 1000))

    def change(old: str, new: str = "another long password") -> Any:
        passwords = {"old_password": old, "new_password1": new, "new_password2": new}
        return client.post("/admin/password_change/", passwords)

    # Given a session, and a password that is changed with the old one
    assert change(PASSWORD)["Location"] == "/admin/login/?next=/admin/password_change/"
    client.force_login(User.objects.get())
    assert "Change" in client.get("/admin/password_change/").content.decode()
    assert change(PASSWORD)["Location"] == "/admin/password_change/done/"

    # When someone tries to find out the new one, I expect only the first tries to be looked at
    found = [change(old, PASSWORD).content.decode() for old in ("a", "b", "another long password")]
    assert [("was entered incorrectly" in text, "too many tries" in text) for text in found] == [
        (True, False),
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize("url", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_a_login_leads_to_no_other_host(client: Client, url: str) -> None:
    answer = client.post(f"/admin/login/?next={url}", {"username": "olga", "password": PASSWORD, "next": url})
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")


@pytest.mark.parametrize("password", ["short", "q1w2e3r4t5y6"])
def test_a_weak_password_is_refused(password: str) -> None:
    with pytest.raises(ValidationError):
        validate_password(password, User.objects.get())
