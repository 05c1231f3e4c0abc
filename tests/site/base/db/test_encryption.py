"""Encrypted fields: what is stored says which key it has, and what cannot be decrypted stands in the way of nothing else."""

import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db import connection
from hypothesis import given, settings
from hypothesis import strategies as st

from callbacks.models import Subscription
from jobs.models import Job
from orchestrator_site.base.db.encryption import MARK_LENGTH, Ciphertext, Keys, Unreadable
from tests.helpers.encryption_keys import LOST, NEW, OLD, make_secret_job, use_keys
from tests.helpers.factories import make_job

KEYS = Keys((NEW, OLD))


@settings(max_examples=20)
@given(st.text())
def test_any_text_is_read_as_it_was_stored(text: str) -> None:
    ciphertext = KEYS.encrypt(text)
    assert KEYS.decrypt(ciphertext) == text
    assert ciphertext[:MARK_LENGTH] == KEYS.mark
    # An earlier release, which knows nothing of marks, reads it as well: both run while a release is deployed.
    assert Fernet(NEW).decrypt(ciphertext.encode()).decode() == text


@given(st.binary(min_size=32, max_size=32))
def test_no_mark_is_a_time(key: bytes) -> None:
    mark = Keys((urlsafe_b64encode(key).decode(),)).mark
    assert int.from_bytes(urlsafe_b64decode(mark)[1:], "big") > 1 << 62


def test_each_key_has_a_mark_of_its_own() -> None:
    # Given marks of different keys, and what an earlier release stored, now and in a thousand years
    marks = {Keys((key,)).mark for key in (NEW, OLD, LOST)}
    times = {
        Fernet(NEW).encrypt_at_time(b"", int(at))[:MARK_LENGTH].decode() for at in (time.time(), time.time() + 1000 * 365 * 86400)
    }

    # I expect all to differ, and the mark of a key to depend on nothing else
    assert len(marks | times) == 5
    assert Keys((NEW, OLD)).mark == Keys((NEW,)).mark == KEYS.mark
    assert all(len(mark) == MARK_LENGTH for mark in marks)


def test_a_mark_says_nothing_about_its_key() -> None:
    assert KEYS.mark not in NEW
    assert not any(NEW[start : start + 4] in KEYS.mark for start in range(len(NEW) - 3))


def test_what_no_key_decrypts_is_an_error_without_the_value() -> None:
    with pytest.raises(Unreadable, match="ENCRYPTION_KEYS") as caught:
        KEYS.decrypt(Keys((LOST,)).encrypt("secret"))
    assert caught.value.__cause__ is None
    with pytest.raises(Unreadable):
        KEYS.decrypt("damaged")


@pytest.mark.django_db
class TestRows:
    def test_a_row_is_usable_without_the_key_of_its_secrets(self, settings: Any) -> None:
        # Given a row whose key is missing
        job = Job.objects.get(pk=make_secret_job(settings, LOST).pk)

        # When another field is changed
        job.doing = "changed"
        job.save(update_fields=["doing"])

        # I expect only its secrets to be unreadable, and them to be as before
        with pytest.raises(Unreadable):
            _ = job.environment
        use_keys(settings, LOST)
        assert Job.objects.get(doing="changed").environment == {"TOKEN": "secret"}

    def test_queries_for_values_return_what_is_stored(self, settings: Any) -> None:
        use_keys(settings, NEW)
        make_secret_job(settings, NEW)
        (value,) = Job.objects.values_list("environment", flat=True)
        assert isinstance(value, Ciphertext)
        assert value.startswith(KEYS.mark)

    def test_a_value_that_was_set_is_read_and_encrypted(self) -> None:
        job = make_job(environment={"A": "b"})
        job.environment = {"A": "canary"}
        job.save(force_update=True, update_fields=["environment"])
        assert job.environment == Job.objects.get().environment == {"A": "canary"}
        with connection.cursor() as cursor:
            cursor.execute("SELECT environment FROM jobs_job")
            assert "canary" not in str(cursor.fetchall())

    def test_values_that_are_null_stay_null(self) -> None:
        make_job()
        subscription = Subscription.objects.get()
        assert (subscription.previous_key, subscription.headers) == (None, None)
