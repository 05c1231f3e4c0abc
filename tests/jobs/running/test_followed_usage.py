"""The usage of jobs whose engine does not keep it: it is followed while they run."""

import pytest

from tests.fake_engine import FakeEngine
from tests.helpers.factories import make_job
from tests.helpers.job_checks import create_go_file
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed, running

pytestmark = pytest.mark.django_db(transaction=True)

UNTIL_GO = "while [ ! -e go ]; do sleep 0.02; done"


def test_the_usage_of_a_job_is_what_was_seen_last(engine: FakeEngine, workers: Workers) -> None:
    # Given a running job on an engine that does not keep the usage of containers
    engine.keeps_usage = False
    job = make_job(command=UNTIL_GO)
    workers.run(workers.another())
    running(job)
    (followed,) = wait_for(lambda: list(engine.usage_followed), 10, "its usage to be followed")
    (container,) = engine.list({})
    assert followed == container.name
    wait_for(lambda: engine._containers[followed].sample, 10, "a sample")

    # When it ends
    create_go_file(engine)

    # I expect it to be known, and not to be followed any more
    job = completed(job)
    assert job.cpu_seconds is not None
    assert job.peak_memory_bytes
    assert engine.usage_followed == []


def test_it_is_not_followed_after_the_hand_over(engine: FakeEngine, workers: Workers) -> None:
    # Given
    engine.keeps_usage = False
    job = make_job(command=UNTIL_GO)
    worker = workers.another()
    thread = workers.run(worker)
    running(job)
    wait_for(lambda: engine.usage_followed, 10, "its usage to be followed")

    # When its worker stops
    worker.stop()
    thread.join(10)

    # I expect the container to run on
    assert engine.usage_followed == []
    assert [seen.phase for seen in engine.list({})] == ["running"]


def test_nothing_is_followed_if_the_engine_keeps_the_usage(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    asked: list[str] = []
    monkeypatch.setattr(engine, "follow_usage", asked.append)
    job = make_job(command=UNTIL_GO)
    workers.run(workers.another())
    running(job)

    # When it ends
    create_go_file(engine)

    # I expect
    assert completed(job).peak_memory_bytes is not None
    assert asked == []
