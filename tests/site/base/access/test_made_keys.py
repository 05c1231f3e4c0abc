"""Keys that are made in the admin: what is stored of them, and when they are accepted."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from jobs.api import job_views
from orchestrator_site.base.access import made_keys
from orchestrator_site.base.access.models import ApiKey
from orchestrator_site.base.intervals import AccessIntervals
from tests.helpers.api_calls import Answer, configured, expect_error, post_body
from tests.helpers.factories import make_job
from tests.helpers.keys import bearer, make_key

pytestmark = pytest.mark.django_db


def call(client: Client, key: str) -> Answer:
    with configured(api_auth_required=True, api_key_file=None):
        return client.get("/v1/jobs", headers=bearer(key))


def test_only_the_start_and_a_digest_of_a_key_are_stored() -> None:
    key = make_key("team-a")
    row = ApiKey.objects.get()
    assert re.fullmatch(r"orch_[a-z0-9]{8}_[A-Za-z0-9_-]{43}", key)
    assert key.startswith(f"{row.prefix}_")
    assert key.removeprefix(row.prefix)[1:] not in str(ApiKey.objects.values())


def test_a_made_key_works_beside_and_without_the_file(client: Client) -> None:
    assert call(client, make_key("default")).status_code == 200


def test_a_key_that_differs_in_its_secret_is_unknown(client: Client) -> None:
    key = make_key("default")
    assert expect_error(call(client, key[:-1] + ("A" if key[-1] != "A" else "B")), 401) == "unknown API key"
    assert expect_error(call(client, "orch_aaaaaaaa_" + key[-43:]), 401) == "unknown API key"


def test_a_revoked_key_is_refused_by_the_next_request(client: Client) -> None:
    key = make_key("default")
    assert call(client, key).status_code == 200
    assert made_keys.revoke(ApiKey.objects.get().pk)
    assert expect_error(call(client, key), 401) == "the API key was revoked"
    assert expect_error(call(client, "another"), 401) == "the service has no API keys yet"
    assert not made_keys.revoke(ApiKey.objects.get().pk)


@pytest.mark.parametrize(("path", "media_type"), [("", ""), ("/logs", "text/plain"), ("/logs", "application/json")])
def test_a_key_that_is_revoked_while_a_request_waits_gets_no_answer(
    client: Client, monkeypatch: pytest.MonkeyPatch, path: str, media_type: str
) -> None:
    key = make_key("default")
    make_job(id="a")

    def revoke_meanwhile(look: Callable[[], Any], *_: Any) -> Any:
        made_keys.revoke(ApiKey.objects.get().pk)
        return look()

    monkeypatch.setattr(job_views, "look_until", revoke_meanwhile)
    with configured(api_auth_required=True, api_key_file=None):
        answer = client.get(f"/v1/jobs/a{path}?wait=1", headers=bearer(key) | {"Accept": media_type})
    assert expect_error(answer, 401) == "the API key was revoked or has expired"


def test_a_key_is_accepted_until_it_expires(client: Client) -> None:
    key, other = (make_key("default", expires_at=timezone.now() + timedelta(hours=hours)) for hours in (1, -1))
    assert call(client, key).status_code == 200
    assert expect_error(call(client, other), 401) == "the API key has expired"


def test_a_read_only_key_changes_nothing(client: Client) -> None:
    key = make_key(None, read_only=True)
    with configured(api_auth_required=True, api_key_file=None):
        assert client.get("/v1/jobs", headers=bearer(key)).status_code == 200
        expect_error(post_body(client, '{"image": "a"}', headers=bearer(key)), 403)
        expect_error(client.delete("/v1/jobs/a", headers=bearer(key)), 403)
        expect_error(client.post("/v1/destinations/1/pause", headers=bearer(key)), 403)


def test_the_last_use_is_stored_once_a_minute(client: Client) -> None:
    # Given a key that was used a moment ago
    key = make_key("default")
    call(client, key)
    used = ApiKey.objects.get().last_used_at
    assert used is not None

    # When it is used again, I expect its row to be read and not to be written
    with CaptureQueriesContext(connection) as queries:
        call(client, key)
    assert [query["sql"].split()[0] for query in queries] == ["SELECT", "SELECT"]
    assert ApiKey.objects.get().last_used_at == used

    # and a minute later to be written
    ApiKey.objects.update(last_used_at=used - timedelta(seconds=AccessIntervals().note_use))
    call(client, key)
    assert ApiKey.objects.get().last_used_at >= used
