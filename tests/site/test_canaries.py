"""Every secret of a job is known, encrypted in the database and shown by no answer.

`tests/acceptance/test_secrets.py` looks in more places.
"""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.test import Client

from jobs.models import Job
from orchestrator_site.base.config.configuration import Configuration
from orchestrator_site.base.db.encryption import EncryptedTextField
from tests.helpers.api_calls import post_job
from tests.helpers.canaries import (
    CANARY,
    SECRET_MEMBERS,
    SECRET_SETTINGS,
    SHOWN_MEMBERS,
    SHOWN_SETTINGS,
    canary_of,
    found_in,
    job_with_canaries,
    spellings,
)

pytestmark = pytest.mark.django_db

JOB = job_with_canaries(
    download="http://h.example/in", upload="http://h.example/out", callback="http://h.example/hook", meta={"team": "video"}
)


def members(document: dict[str, Any], schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield the paths of all members that have no members of their own, in all alternatives."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    parts = [(part, path) for kind in ("oneOf", "allOf") for part in schema.get(kind, [])]
    parts += [(part, f"{path}.{name}".lstrip(".")) for name, part in schema.get("properties", {}).items()]
    if schema.get("type") == "array":
        parts.append((schema["items"], f"{path}[]"))
    if not parts:
        yield path.removesuffix("[]")
    for part, of in parts:
        yield from members(document, part, of)


def test_every_member_of_a_job_is_either_secret_or_shown(client: Client) -> None:
    document = client.get("/v1/openapi.json").json()
    schema = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(members(document, schema)) == SECRET_MEMBERS | SHOWN_MEMBERS
    assert not SECRET_MEMBERS & SHOWN_MEMBERS
    assert all(canary_of(member) in str(JOB) for member in SECRET_MEMBERS), "a secret member needs a canary"


def test_every_setting_is_either_secret_or_shown() -> None:
    assert {field.name for field in fields(Configuration)} == SECRET_SETTINGS.keys() | SHOWN_SETTINGS
    assert not SECRET_SETTINGS.keys() & SHOWN_SETTINGS


def test_all_secrets_are_encrypted_and_only_they(client: Client) -> None:
    # Given a job with a canary in each secret member
    assert post_job(client, **JOB).status_code == 202

    # I expect no canary in any table
    with connection.cursor() as cursor:
        rows = []
        for table in connection.introspection.table_names():
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            rows += cursor.fetchall()
    assert "alpine:latest" in str(rows)
    assert found_in(str(rows), [CANARY]) == []

    # And each in an encrypted column, and one in each of these
    decrypted = {
        f"{model._meta.db_table}.{field.name}": str([getattr(row, field.name) for row in model._default_manager.all()])
        for model in apps.get_models()
        for field in model._meta.fields
        if isinstance(field, EncryptedTextField)
    }
    assert all(any(found_in(text, [canary_of(member)]) for text in decrypted.values()) for member in SECRET_MEMBERS)
    assert [column for column, text in decrypted.items() if not found_in(text, [CANARY])] == []


def test_no_answer_shows_a_secret(client: Client) -> None:
    identity = post_job(client, **JOB).json()["id"]
    paths = ["", f"/{identity}", f"/{identity}/logs", f"/{identity}/events"]
    answers = [b"".join(client.get(f"/v1/jobs{path}")).decode() for path in paths]
    assert identity in answers[0]
    assert found_in(str(answers) + str(Job.objects.values("id", "meta", "command", "error", "doing")), [CANARY]) == []


@pytest.mark.parametrize("before", [b"", b"a", b"ab"])
@pytest.mark.parametrize("after", [b"", b"a", b"ab"])
def test_a_secret_is_found_in_other_spellings(before: bytes, after: bytes) -> None:
    secret = b"canary7f3a-of-the-test"
    for text in (secret.decode(), (before + secret + after).hex(), b64encode(before + secret + after).decode()):
        assert found_in(f"… {text} …", [secret.decode()])
    assert found_in(b64encode(b"another text, of the same length").decode(), spellings("canary7f3a")) == []
