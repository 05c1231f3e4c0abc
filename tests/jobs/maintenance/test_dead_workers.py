"""Who lives, who is dead, and what becomes of a dead worker's jobs."""

import threading
from pathlib import Path

import pytest
from django.db import connection, transaction
from django.db.models import F

from jobs import lifecycle
from jobs.errors import OwnershipLost
from jobs.maintenance.dead_workers import DEAD_AFTER_SECONDS, Heart, LostNodes, Observer, bury
from jobs.models import Job, Node, Worker
from tests.helpers.factories import STARTED_AT, claimed, make_job, make_node, make_worker
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float, observer: Observer | LostNodes) -> int:
        """Let time pass while the observer looks once a second; the last look's answer."""
        result: object = 0
        for _ in range(int(seconds)):
            self.now += 1
            result = observer.look()
        return result  # type: ignore[return-value]


def test_a_worker_whose_counter_stands_still_is_buried_and_its_jobs_are_free() -> None:
    # Given a worker with a job, seen alive
    node = make_node()
    job = make_job()
    claim = claimed(job, node)
    clock = Clock()
    observer = Observer(clock)
    observer.look()

    # When its counter stands still for less than the limit, I expect nothing
    clock.pass_by(DEAD_AFTER_SECONDS - 1, observer)
    assert Worker.objects.count() == 1

    # When for longer, I expect its job to have no owner, and its late writes to be refused
    clock.pass_by(2, observer)
    assert Worker.objects.count() == 0
    job.refresh_from_db()
    assert job.owner is None
    with pytest.raises(OwnershipLost):
        lifecycle.started(claim, STARTED_AT)


def test_a_counter_that_moves_keeps_a_worker_alive() -> None:
    worker = make_worker(make_node())
    clock = Clock()
    observer = Observer(clock)
    for _ in range(10):
        Worker.objects.filter(pk=worker).update(counter=F("counter") + 1)
        clock.pass_by(5, observer)

    assert Worker.objects.filter(pk=worker).exists()


def test_a_database_that_was_away_kills_nobody() -> None:
    # Given an observer that saw a worker
    make_worker(make_node())
    clock = Clock()
    observer = Observer(clock)
    observer.look()

    # When it could not look for an hour
    clock.now += 3600
    observer.look()

    # I expect the worker to get its full time again
    clock.pass_by(DEAD_AFTER_SECONDS - 1, observer)
    assert Worker.objects.count() == 1


def test_a_lock_file_that_can_be_taken_is_death_at_once(tmp_path: Path) -> None:
    # Given a live worker of this machine and a dead one that left its lock file
    node = make_node()
    heart = Heart(node.pk, tmp_path)
    left = tmp_path / "dead.lock"
    left.touch()
    dead = make_worker(node, str(left))

    # When somebody looks
    Observer().look()

    # I expect the dead one gone, its file too, and the live one to be there
    assert not Worker.objects.filter(pk=dead).exists()
    assert not left.exists()
    assert Worker.objects.filter(pk=heart.worker_id).exists()
    heart.stop()
    assert not Worker.objects.exists()
    assert list((tmp_path / "locks").iterdir()) == []


def test_a_worker_that_comes_back_finds_itself_dead_and_starts_anew(tmp_path: Path) -> None:
    # Given a worker that was buried while it was frozen
    heart = Heart(make_node().pk, tmp_path)
    first = heart.worker_id
    assert heart.beat(engine_answers=True)
    assert bury(first)

    # When it beats again, I expect a new identity
    assert not heart.beat(engine_answers=True)
    assert heart.worker_id != first
    assert heart.beat(engine_answers=True)
    heart.stop()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite locks no single rows")
def test_a_heart_beats_on_while_somebody_holds_the_node(tmp_path: Path) -> None:
    # Given a process that was frozen in the middle of a claim, and with it a lock on the node's row
    node = make_node()
    heart = Heart(node.pk, tmp_path)
    beating = threading.Thread(target=heart.beat, kwargs={"engine_answers": True})
    with transaction.atomic():
        Node.objects.select_for_update().get(pk=node.pk)

        # When another worker of the node beats, I expect its counter to move
        beating.start()
        wait_for(lambda: Worker.objects.get(pk=heart.worker_id).counter == 1, 5, "the beat")
    beating.join(10)
    heart.stop()


def test_a_node_is_seen_only_while_its_engine_answers(tmp_path: Path) -> None:
    # Given a worker
    node = make_node()
    heart = Heart(node.pk, tmp_path)
    node.refresh_from_db()
    born = node.seen_at

    # When its engine does not answer, I expect the worker to live on, and its node not to be seen
    assert heart.beat(engine_answers=False)
    node.refresh_from_db()
    assert (Worker.objects.get().counter, node.seen_at) == (1, born)

    # When it does, I expect both
    assert heart.beat(engine_answers=True)
    node.refresh_from_db()
    assert Worker.objects.get().counter == 2
    assert born is not None
    assert node.seen_at is not None
    assert node.seen_at > born
    heart.stop()


def test_locks_that_nobody_has_a_row_for_go_when_a_worker_starts(tmp_path: Path) -> None:
    # Given a worker that lives, one that is dead and not buried yet, and a lock that a killed process left without a row
    node = make_node()
    living = Heart(node.pk, tmp_path)
    dead, abandoned = tmp_path / "locks" / "dead.lock", tmp_path / "locks" / "abandoned.lock"
    for path in (dead, abandoned):
        path.touch()
    make_worker(node, lock_path=str(dead))

    # When another starts
    another = Heart(node.pk, tmp_path)

    # I expect the last one's to be gone, and the others' to be there still
    locks = {path.stem for path in (tmp_path / "locks").iterdir()}
    assert locks == {"dead", str(living.worker_id), str(another.worker_id)}
    for heart in (living, another):
        heart.stop()


def test_a_worker_that_beats_meanwhile_is_not_buried() -> None:
    worker = make_worker(make_node())
    Worker.objects.filter(pk=worker).update(counter=7)

    assert not bury(worker, counter=6)
    assert Worker.objects.filter(pk=worker).exists()


def test_a_node_without_a_worker_is_lost_after_its_time_and_not_before() -> None:
    # Given a job on a node whose worker is gone
    node = make_node()
    claimed(make_job(), node)
    bury(Worker.objects.get().pk)
    clock = Clock()
    nodes = LostNodes(after=60, clock=clock)

    # I expect it to be lost after 60 s of watching
    assert nodes.look() == []
    assert clock.pass_by(59, nodes) == []
    assert clock.pass_by(2, nodes) == [node.pk]

    # And to be forgiven as soon as a worker is back
    make_worker(node)
    assert clock.pass_by(1, nodes) == []
    assert Job.objects.get().node == node
