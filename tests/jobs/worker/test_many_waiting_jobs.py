"""What it costs a worker that its jobs wait in a full cluster; on a fake that schedules."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from django.db import connection
from django.db.backends.utils import CursorWrapper

from jobs import services
from jobs.models import Job
from jobs.states import State
from tests.fake_engine import SchedulingEngine
from tests.helpers.factories import make_job
from tests.helpers.fake_clusters import NO_CPU, NO_MEMORY
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.alone]

JOBS: Final = 500
TICKS: Final = 5
MAX_STATEMENTS_OF_A_TICK: Final = 8  # whatever the number of jobs
MAX_CONNECTIONS: Final = 20  # that the database has open, with those of the test
MAX_OTHER_THREADS: Final = 10  # of a worker, and of the test


@pytest.fixture
def engine(cluster: SchedulingEngine) -> SchedulingEngine:
    return cluster


@contextmanager
def counted_statements() -> Iterator[Counter[str]]:
    """Count the statements of all threads by the name of the thread."""
    counts: Counter[str] = Counter()
    execute = CursorWrapper.execute

    def counted(cursor: Any, sql: str, params: Any = None) -> Any:
        counts[threading.current_thread().name] += 1
        return execute(cursor, sql, params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CursorWrapper, "execute", counted)
        yield counts


def say(reason: str) -> int:
    return Job.objects.filter(doing=reason).count()


@pytest.mark.timeout(300)
def test_500_jobs_wait_in_one_worker(engine: SchedulingEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a worker whose 500 jobs wait in a full cluster
    engine.full_because = NO_CPU
    workers.set_intervals(worker={"tick": 0.5})
    before = threading.active_count()
    supervisor = workers.another(worker_threads=512)
    jobs = [make_job(callback=None) for _ in range(JOBS)]
    threads = [workers.run(supervisor) for _ in jobs]
    wait_for(lambda: say(NO_CPU) == JOBS, 200, "all to wait", 0.2)

    # I expect a thread for each, and none more
    assert sum(thread.is_alive() for thread in threads) == JOBS
    assert threading.active_count() - before <= JOBS + MAX_OTHER_THREADS

    # And as long as nothing changes, only the supervisor to look at the database: at all jobs at once
    ticks = threading.Semaphore(0)
    check = supervisor._job_watch.check
    monkeypatch.setattr(supervisor._job_watch, "check", lambda *args: (check(*args), ticks.release()))
    assert ticks.acquire(timeout=30)
    with counted_statements() as counts:
        for _ in range(TICKS):
            assert ticks.acquire(timeout=30)
    assert set(counts) <= {"supervisor"}
    assert counts.total() <= MAX_STATEMENTS_OF_A_TICK * (TICKS + 1)
    if connection.vendor == "postgresql":
        assert connections() <= MAX_CONNECTIONS

    # And a statement for each job when the scheduler has another reason
    with counted_statements() as counts:
        engine.full_because = NO_MEMORY
        wait_for(lambda: say(NO_MEMORY) == JOBS, 60, "all to say so", 0.5)
    of_jobs = {name: number for name, number in counts.items() if name.startswith("Thread-")}
    assert (len(of_jobs), max(of_jobs.values())) == (JOBS, 1)

    # And each to be woken alone when it is cancelled
    services.cancel(jobs[0].id)
    wait_for(lambda: Job.objects.get(pk=jobs[0].pk).completed_at, 20, "the end of the cancelled one")
    assert Job.objects.filter(status=State.ACCEPTED, owner=supervisor._heartbeat.worker_id).count() == JOBS - 1
    assert len(engine.list({})) == JOBS - 1


def connections() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()")
        (number,) = cursor.fetchone()
    return int(number)
