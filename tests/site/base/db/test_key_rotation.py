"""Secrets are encrypted with the first key while the service goes on; what is done is not done again, and nothing is lost."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from callbacks.models import Subscription
from jobs.models import Input, Job, Output
from orchestrator_site.base.db import key_rotation
from orchestrator_site.base.db.encryption import EncryptedTextField, Keys
from orchestrator_site.base.db.key_rotation import Progress
from tests.helpers.encryption_keys import LOST, NEW, OLD, SECRETS, make_secret_job, use_keys
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def keys(settings: Any) -> None:
    use_keys(settings, NEW, OLD)


def stored() -> Iterator[tuple[str, str]]:
    """Return all ciphertexts, each with the name of its column."""
    for model in apps.get_models():
        for field in model._meta.concrete_fields:
            if isinstance(field, EncryptedTextField):
                for value in model._default_manager.exclude(**{field.name: None}).values_list(field.name, flat=True):
                    yield f"{model._meta.db_table}.{field.column}", value


def keys_in_use() -> set[str]:
    names = {Keys((key,)).mark: name for key, name in ((NEW, "new"), (OLD, "old"), (LOST, "lost"))}
    return {names[value[:12]] for _, value in stored()}


def counts(done: list[Progress]) -> dict[str, tuple[int, int, int]]:
    return {one.table: (one.rows, one.changed, one.unreadable) for one in done}


def test_all_secrets_get_the_first_key(settings: Any) -> None:
    # Given a secret in each encrypted column, which another key has encrypted
    job = make_secret_job(settings, OLD)
    encrypted = {f"{model._meta.db_table}.{field.column}" for model in apps.get_models() for field in model._meta.fields
                 if isinstance(field, EncryptedTextField)}  # fmt: skip
    assert {column for column, _ in stored()} == encrypted, "a new column needs a value in `SECRETS`"
    assert keys_in_use() == {"old"}

    # When
    done = key_rotation.rotate()

    # I expect the other key not to be needed any more
    assert keys_in_use() == {"new"}
    assert counts(done) == {
        "callbacks_subscription": (1, 1, 0),
        "jobs_job": (1, 1, 0),
        "jobs_input": (2, 2, 0),
        "jobs_output": (1, 1, 0),
    }
    use_keys(settings, NEW)
    assert Job.objects.get().environment == SECRETS["environment"]
    assert {item.url for item in job.inputs.all()} == {item.url for item in SECRETS["inputs"]}
    assert Output.objects.get().headers == SECRETS["outputs"][0].headers
    subscription = Subscription.objects.get()
    assert (subscription.key, subscription.previous_key) == SECRETS["callback"].keys


def test_what_an_earlier_release_has_stored_is_encrypted_again(settings: Any) -> None:
    # Given a secret with the time of its encryption instead of a mark
    make_secret_job(settings, NEW)
    token = Keys((NEW,))._ciphers.encrypt(b'{"A": "b"}').decode()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE jobs_job SET environment = %s", [token])

    key_rotation.rotate()

    assert keys_in_use() == {"new"}
    assert Job.objects.get().environment == {"A": "b"}


def test_what_has_the_first_key_is_neither_read_nor_written(settings: Any) -> None:
    for _ in range(3):
        make_secret_job(settings, NEW)

    # When they are looked at, I expect one statement for each table, however many rows it has up to a page
    with CaptureQueriesContext(connection) as queries:
        done = key_rotation.rotate()
    assert {(rows, changed) for rows, changed, _ in counts(done).values()} == {(3, 0), (6, 0)}
    assert len([query for query in queries if query["sql"].startswith("SELECT")]) == len(done)
    assert not [query for query in queries if query["sql"].startswith("UPDATE")]


def test_a_table_is_read_page_by_page(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given more rows than a page has, some of them rotated before, and a last page that is full
    monkeypatch.setattr(key_rotation, "_PAGE_ROWS", 2)
    monkeypatch.setattr(key_rotation, "_BATCH_ROWS", 1)
    for key in (OLD, NEW, NEW, OLD, NEW, OLD):
        make_secret_job(settings, key)

    done = key_rotation.rotate()

    assert counts(done)["jobs_job"] == (6, 3, 0)
    assert keys_in_use() == {"new"}


def test_a_rotation_that_was_killed_is_continued(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a rotation that ends after a transaction
    monkeypatch.setattr(key_rotation, "_BATCH_ROWS", 1)
    for _ in range(3):
        make_secret_job(settings, OLD)

    def die(progress: Progress) -> None:
        if progress.changed == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        key_rotation.rotate(die)
    first = sum(value.startswith(Keys((NEW,)).mark) for _, value in stored())
    assert first > 0

    # And another one that ends in a transaction
    with monkeypatch.context() as patch:
        patch.setattr(Keys, "encrypt", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            key_rotation.rotate()
    assert sum(value.startswith(Keys((NEW,)).mark) for _, value in stored()) == first

    # When there is another one, I expect it to do the rest only
    done = key_rotation.rotate()
    assert keys_in_use() == {"new"}
    assert sum(one.changed for one in done) == 3 * 5 - 2


def test_what_no_key_decrypts_is_counted_and_left_as_it_is(settings: Any) -> None:
    # Given rows of a key that is lost, between others, and one of which only a part cannot be decrypted
    make_secret_job(settings, OLD)
    lost = make_secret_job(settings, LOST)
    damaged = make_secret_job(settings, OLD)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE jobs_output SET url = 'damaged' WHERE job_id = %s", [Output.objects.get(job=damaged).job_id.hex
                       if connection.vendor == "sqlite" else damaged.pk])  # fmt: skip
    before = {value for _, value in stored() if value.startswith(Keys((LOST,)).mark)}
    named: list[str] = []

    # When
    done = key_rotation.rotate(unreadable=lambda row: named.append(str(row)))

    # I expect them to be named without what they contain, and everything else to have the first key
    assert {unreadable for _, _, unreadable in counts(done).values()} == {1, 2}
    (input_names, job_name) = [[name for name in named if name.startswith(table)] for table in ("jobs_input", "jobs_job")]
    assert len(input_names) == 2
    assert job_name in ([f"jobs_job {lost.pk}: environment"], [f"jobs_job {lost.pk.hex}: environment"])
    assert f"jobs_output {Output.objects.get(job=damaged).pk}: url" in named
    assert {value for _, value in stored() if not value.startswith(Keys((NEW,)).mark)} == before | {"damaged"}
    assert Output.objects.get(job=damaged).headers == SECRETS["outputs"][0].headers

    # And a second rotation to find the same ones
    assert [(one.changed, one.unreadable) for one in key_rotation.rotate()] == [(0, one.unreadable) for one in done]


def test_a_missing_key_is_found_at_either_end(settings: Any) -> None:
    # Given nothing, and rows that can be decrypted
    assert key_rotation.unreadable_ends() == []
    make_secret_job(settings, OLD)
    assert key_rotation.unreadable_ends() == []

    # When the newest rows cannot be decrypted, I expect one of each table to be named
    make_secret_job(settings, LOST)
    assert {row.table for row in key_rotation.unreadable_ends()} == {table.name for table in key_rotation.tables()}

    # When the oldest cannot
    use_keys(settings, LOST)
    assert len(key_rotation.unreadable_ends()) == 4


@given(st.lists(st.integers(1, 3 << 20)))
def test_a_transaction_is_limited(lengths: list[int]) -> None:
    rows = dict(enumerate(lengths))
    batches = list(key_rotation._batches(rows))
    assert [key for batch in batches for key in batch] == list(rows)
    assert all(len(batch) <= 100 and (len(batch) == 1 or sum(rows[key] for key in batch) <= 1 << 20) for batch in batches)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="on SQLite a transaction locks the whole database")
def test_a_row_in_use_is_waited_for_without_a_lock_of_others(settings: Any) -> None:
    # Given a transaction that has locked a row, and changes its secrets
    jobs = [make_secret_job(settings, OLD) for _ in range(3)]
    locked, release = threading.Event(), threading.Event()

    def change() -> None:
        try:
            with transaction.atomic():
                Job.objects.filter(pk=jobs[0].pk).update(environment={"changed": "meanwhile"}, doing="changed")
                locked.set()
                release.wait(20)
        finally:
            connection.close()

    other = threading.Thread(target=change)
    other.start()
    assert locked.wait(20)

    # When there is a rotation, I expect the other rows to be changed, and no lock to be held while it waits
    def rotate() -> None:
        try:
            key_rotation.rotate()
        finally:
            connection.close()

    rotation = threading.Thread(target=rotate)
    rotation.start()
    mark = Keys((NEW,)).mark
    wait_for(lambda: Job.objects.filter(environment__startswith=mark).count() == 2, 20, "the others to be changed")
    with transaction.atomic():
        assert len(Job.objects.select_for_update(skip_locked=True)) == 2
    release.set()
    other.join(20)
    rotation.join(20)

    # And the change not to be lost
    assert keys_in_use() == {"new"}
    assert [Job.objects.get(pk=job.pk).environment for job in jobs] == [{"changed": "meanwhile"}, *[SECRETS["environment"]] * 2]


def test_rows_that_are_deleted_meanwhile_are_passed_over(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        make_secret_job(settings, OLD)
    pages = key_rotation.SecretTable._pages

    def pages_of_deleted_rows(table: Any) -> Any:
        for page in pages(table):
            if table.name == "jobs_input":
                Input.objects.all().delete()
            yield page

    monkeypatch.setattr(key_rotation.SecretTable, "_pages", pages_of_deleted_rows)
    assert counts(key_rotation.rotate())["jobs_input"] == (4, 0, 0)
