"""A worker without jobs: each wake-up of a thread takes processor time, all day long."""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from jobs.engine.protocol import EngineInfo
from tests.fake_engine import FakeEngine
from tests.helpers.factories import make_job
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def wait_for_looks(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Wait until the worker has asked its engine for its state this many times."""
    asked = threading.Semaphore(0)
    info = FakeEngine.info

    def counted(engine: FakeEngine) -> EngineInfo:
        asked.release()
        return info(engine)

    def wait(count: int) -> None:
        while asked.acquire(blocking=False):  # earlier ones
            pass
        for _ in range(count):
            assert asked.acquire(timeout=10)

    monkeypatch.setattr(FakeEngine, "info", counted)
    return wait


def wake_ups(threads: Iterable[threading.Thread]) -> dict[str, int]:
    """Return how often each thread has waited until now, by its name."""
    found = {}
    for thread in threads:
        lines = Path(f"/proc/self/task/{thread.native_id}/status").read_text().splitlines()
        found[thread.name] = next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches:"))
    return found


def test_threads_that_only_work_for_jobs_sleep_while_there_are_none(
    workers: Workers, wait_for_looks: Callable[[int], None]
) -> None:
    # Given a worker that looks at its disk far more often than at its engine, and whose only job has ended
    workers.set_intervals(engine={"watch": 0.2}, disk={"look": 0.01})
    others = threading.enumerate()
    supervisor = workers.another()
    threads = [thread for thread in threading.enumerate() if thread not in others and thread.name in ("disk watch", "sandboxes")]
    job = make_job()
    supervisor.run_jobs()
    completed(job)
    assert "disk watch" in wake_ups(threads)

    # When time passes, I expect them to go to sleep for good. On a busy machine they need a while for that.
    def sleep() -> bool:
        before = wake_ups(threads)
        wait_for_looks(3)
        return wake_ups(threads) == before

    wait_for(sleep, 30, "no thread to wake up")

    # And them to end with the worker
    supervisor.stop()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
