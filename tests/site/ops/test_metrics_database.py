"""The metrics that are read from the database."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.db.models import F
from django.utils import timezone
from prometheus_client import CollectorRegistry

from callbacks.models import Destination, Event
from jobs import lifecycle
from jobs.models import Job, Node, new_uuid
from jobs.running import claiming
from orchestrator_site.base.intervals import MetricsIntervals
from orchestrator_site.base.measurements.image_names import read_names
from orchestrator_site.ops import metrics_database
from orchestrator_site.ops.metrics_database import Database, DatabaseCollector, Postgresql, Sqlite
from tests.helpers.delivery_fixtures import START, Stream
from tests.helpers.factories import STARTED_AT, claimed, make_job, make_node, make_worker
from tests.helpers.keys import make_namespace

pytestmark = pytest.mark.django_db(transaction=True)

AT_ONCE = MetricsIntervals(fresh=0.0, images=0.0)
INDEXES = {  # that each statement is to use
    "accepted": "job_(status|undecided)_idx",
    "running": "job_(status|undecided)_idx",
    "oldest_job": "job_status_idx",
    "pending": "event_(oldest_)?pending_idx",
    "oldest_event": "event_oldest_pending_idx",
    "open": "destination_open_idx",
    "reserved": "job_reserved_idx",
    "undecided": "job_(status|undecided)_idx",
    "images": "jobs_job_pkey|sqlite_autoindex_jobs_job",
}


def database_of_the_tests() -> Database:
    settings = connection.settings_dict
    if connection.vendor == "sqlite":
        return Sqlite(Path(settings["NAME"]), AT_ONCE)
    password = quote(settings["PASSWORD"], safe="")
    address = f"{settings['HOST']}:{settings['PORT']}/{settings['NAME']}"
    return Postgresql(f"postgresql://{settings['USER']}:{password}@{address}", AT_ONCE)


@pytest.fixture
def database() -> Iterator[Database]:
    database = database_of_the_tests()
    yield database
    database.close()


@pytest.fixture
def registry(database: Database, tmp_path: Path) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(DatabaseCollector(database, tmp_path, AT_ONCE))
    return registry


def add_jobs(count: int, **values: Any) -> None:
    """Add copies of a job."""
    template = make_job(callback=None, **values)
    jobs = [Job(**{field.name: getattr(template, field.name) for field in Job._meta.concrete_fields}) for _ in range(count - 1)]
    for job in jobs:
        job.uuid = new_uuid()
        job.id = str(job.uuid)
    Job.objects.bulk_create(jobs, batch_size=500)


def test_an_empty_database(registry: CollectorRegistry) -> None:
    names = ("jobs_oldest_seconds", "dispatcher_queue_size", "dispatcher_oldest_seconds", "breakers_open")

    assert [registry.get_sample_value(name) for name in names] == [0, 0, 0, 0]
    assert registry.get_sample_value("jobs_active", {"status": "accepted"}) == 0
    assert registry.get_sample_value("database_up") == 1


def test_what_there_is(registry: CollectorRegistry) -> None:
    # Given two jobs, one of which has waited for a minute
    old = make_job()
    make_job(callback=None)
    Job.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(seconds=60))

    assert registry.get_sample_value("jobs_active", {"status": "accepted"}) == 2
    assert registry.get_sample_value("jobs_oldest_seconds") == pytest.approx(60, abs=20)

    # When it starts, its first event waits for ten minutes, and its callback does not answer
    lifecycle.started(claimed(old), STARTED_AT)
    Event.objects.update(expires_at=F("expires_at") - timedelta(minutes=10))
    Destination.objects.update(open_until=timezone.now())

    # I expect each of these to be shown
    assert registry.get_sample_value("jobs_active", {"status": "running"}) == 1
    assert registry.get_sample_value("jobs_oldest_seconds") == pytest.approx(0, abs=20)
    assert registry.get_sample_value("dispatcher_queue_size") == 1
    assert registry.get_sample_value("dispatcher_oldest_seconds") == pytest.approx(600, abs=20)
    assert registry.get_sample_value("breakers_open") == 1
    assert registry.get_sample_value("node_cpus_reserved", {"node": "node"}) == 1
    assert registry.get_sample_value("node_cpus", {"node": "node"}) == 8
    assert registry.get_sample_value("node_memory_reserved_bytes", {"node": "node"}) == 64 * 1024**2
    assert registry.get_sample_value("node_up", {"node": "node"}) == 1


def test_what_namespaces_use_and_may_use(registry: CollectorRegistry) -> None:
    # Given a namespace with limits, a job that runs and one that waits, and another without anything
    make_namespace("a", max_running=5, max_cpu_millis=2500, max_memory_mib=100, max_undecided=7)
    make_namespace("b")
    node = make_node()
    for _ in range(2):
        make_job(namespace="a", cpu_millis=1500)
    claiming.claim(node.pk, make_worker(node))

    def values(namespace: str, end: str = "") -> list[float | None]:
        names = ("jobs", "cpus", "memory_bytes", "undecided_jobs")
        return [registry.get_sample_value(f"namespace_{name}{end}", {"namespace": namespace}) for name in names]

    assert values("a") == [1, 1.5, 64 * 1024**2, 2]
    assert values("a", "_limit") == [5, 2.5, 100 * 1024**2, 7]
    assert values("b") == [0, 0, 0, 0]
    assert values("b", "_limit") == [None] * 4


@pytest.mark.parametrize("seen", [None, timedelta(minutes=1)])
def test_a_node_without_a_heartbeat_is_down(registry: CollectorRegistry, seen: timedelta | None) -> None:
    make_node("gone")
    Node.objects.update(seen_at=seen and timezone.now() - seen)

    assert registry.get_sample_value("node_up", {"node": "gone"}) == 0


def test_a_drained_node_may_be_shut_down_when_it_has_no_jobs(registry: CollectorRegistry) -> None:
    # Given a drained node whose worker has gone, while a job runs there
    make_node("gone")
    Node.objects.update(seen_at=None, drained=True, cpu_millis_reserved=10)
    assert registry.get_sample_value("node_up", {"node": "gone"}) == 0

    # When that has ended, I expect nothing to be wrong with the node
    Node.objects.update(cpu_millis_reserved=0)
    assert registry.get_sample_value("node_up", {"node": "gone"}) is None
    assert registry.get_sample_value("node_cpus", {"node": "gone"}) == 8


def test_the_images_used_most_get_series_of_their_own(registry: CollectorRegistry, tmp_path: Path) -> None:
    # Given two images, of which the second is used more often
    add_jobs(2, image="rare")
    add_jobs(3, image="frequent")

    registry.get_sample_value("database_up")

    assert read_names(tmp_path) == ["frequent", "rare"]


def test_a_database_that_does_not_answer_is_shown_and_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a database that does not answer
    database = database_of_the_tests()
    collector = DatabaseCollector(database, tmp_path, AT_ONCE)

    def fail(_: str) -> None:
        raise database.errors[0]

    with monkeypatch.context() as patch:
        patch.setattr(database, "query", fail)

        # I expect that to be all
        (up,) = collector.collect()
        assert up.samples[0].value == 0

    # I expect it to be found when it is back
    assert len(list(collector.collect())) > 5
    database.close()


def test_what_was_read_a_moment_ago_is_shown_again(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = DatabaseCollector(database, tmp_path, MetricsIntervals(fresh=3600.0))
    first = collector.collect()
    database.close()

    def fail(_: str) -> None:
        raise AssertionError("the database was asked")

    monkeypatch.setattr(database, "query", fail)

    assert collector.collect() is first


def test_the_connection_cannot_write(database: Database) -> None:
    with pytest.raises(database.errors):
        database.query("UPDATE jobs_job SET image = 'x'")


def test_each_statement_reads_no_more_than_it_shows(database: Database) -> None:
    # Given jobs, events and destinations, most of which are of no interest
    add_jobs(2_000)
    Job.objects.update(status="completed", completed_at=timezone.now())
    add_jobs(50)
    stream = Stream("http://127.0.0.1:9")
    stream.publish(*[START] * 500)
    Event.objects.filter(sequence__lt=490).update(state="delivered")
    origins = [Destination(origin=f"http://127.0.0.1:{port}", used_at=timezone.now()) for port in range(10, 510)]
    Destination.objects.bulk_create(origins)
    Destination.objects.filter(origin__endswith="99").update(open_until=timezone.now())
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")

    # I expect each statement to use an index that has only what it looks for. The few nodes and namespaces are read whole.
    explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
    found = {**metrics_database.statements(database.dialect), "images": metrics_database.IMAGES}
    for name, index in INDEXES.items():
        plan = "\n".join(str(row[-1]) for row in database.query(f"{explain} {found.pop(name)}"))
        assert re.search(index, plan), (name, plan)
        assert "Seq Scan" not in plan, (name, plan)
    assert found.keys() == {"nodes", "namespaces"}


def test_the_oldest_job_is_found_at_once_although_the_statistics_are_old(database: Database) -> None:
    # Given jobs that have ended since the database has last looked what there is
    add_jobs(2_000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    Job.objects.update(status="completed", completed_at=timezone.now())

    # I expect it to read nothing of them
    explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
    statement = metrics_database.statements(database.dialect)["oldest_job"]
    plan = "\n".join(str(row[-1]) for row in database.query(f"{explain} {statement}"))
    assert "job_status_idx" in plan, plan
    assert "Sort" not in plan, plan
    assert "TEMP B-TREE" not in plan, plan
    assert database.query(statement) == []


def test_what_is_counted_is_limited(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_database, "COUNTED_AT_MOST", 3)
    add_jobs(5)

    assert registry.get_sample_value("jobs_active", {"status": "accepted"}) == 3
