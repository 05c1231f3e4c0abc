"""The index of `meta`: triggers keep it (jobs/migrations)."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from importlib import import_module

import pytest
from django.apps import apps
from django.db import connection, transaction
from django.db.models import F

from jobs import lifecycle
from jobs.maintenance import retention
from jobs.models import Job, MetaEntry
from tests.helpers.factories import make_job
from tests.helpers.waiting import wait_for

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no such index"),
]


def entries() -> set[tuple[str, str, object]]:
    return set(MetaEntry.objects.values_list("key", "value", "uuid"))


def test_the_entries_of_a_job_are_deleted_with_it() -> None:
    # Given two jobs with the same member, of which one ended long ago
    old, recent = make_job(meta={"team": "x", "run": "1"}), make_job(meta={"team": "x"})
    lifecycle.cancel(old.uuid)
    Job.objects.filter(uuid=old.uuid).update(completed_at=F("completed_at") - timedelta(hours=1))
    assert entries() == {("team", "x", old.uuid), ("run", "1", old.uuid), ("team", "x", recent.uuid)}

    # When it is deleted, I expect the entry of the other to remain
    assert retention.delete_old_jobs(timedelta(minutes=30)) == 1
    assert entries() == {("team", "x", recent.uuid)}


def test_a_migration_adds_the_jobs_that_are_older_than_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given jobs from an older release, more than a batch, and one that is in the index already
    migration = import_module("jobs.migrations.0009_older_meta_entries")
    monkeypatch.setattr(migration, "BATCH", 2)
    jobs = [make_job(meta={"team": "x", "a.b": 'quoted "ä"'}) for _ in range(5)]
    make_job(meta={})
    MetaEntry.objects.exclude(uuid=jobs[0].uuid).delete()

    # When the migration runs, and runs again because it was interrupted, I expect all of them
    for _ in range(2):
        migration.add_entries(apps, connection.schema_editor())
        assert entries() == {(key, value, job.uuid) for job in jobs for key, value in job.meta.items()}


@pytest.mark.django_db(transaction=True)
def test_a_job_that_is_deleted_during_the_migration_leaves_no_entries() -> None:
    # Given a job that is not in the index yet
    make_job(meta={"team": "x"})
    MetaEntry.objects.all().delete()
    migration = import_module("jobs.migrations.0009_older_meta_entries")

    def add_entries() -> None:
        migration.add_entries(apps, connection.schema_editor())
        connection.close()

    # When it is deleted, and the migration comes to it before that is committed
    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            Job.objects.all().delete()
            adding = threads.submit(add_entries)
            wait_for(is_migration_blocked, what="the migration to wait for the job")
        adding.result()

    # I expect no entry
    assert entries() == set()


def is_migration_blocked() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))")
        return bool(cursor.fetchall())
