"""How a worker shows that it lives."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction

from jobs.maintenance.dead_workers import sign_off
from jobs.models import Node, Worker
from jobs.worker.heartbeat import Heartbeat
from tests.helpers.factories import make_node, make_worker
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_stopped_worker_leaves_neither_row_nor_lock(tmp_path: Path) -> None:
    heartbeat = Heartbeat(make_node().pk, tmp_path)
    heartbeat.stop()

    assert not Worker.objects.exists()
    assert list((tmp_path / "locks").iterdir()) == []


def test_a_worker_that_was_declared_dead_starts_over(tmp_path: Path) -> None:
    # Given a worker that was declared dead while it was frozen
    heartbeat = Heartbeat(make_node().pk, tmp_path)
    first = heartbeat.worker_id
    assert heartbeat.beat(engine_answers=True)
    sign_off(first)

    # When it beats again, I expect a new id
    assert not heartbeat.beat(engine_answers=True)
    assert heartbeat.worker_id != first
    assert heartbeat.beat(engine_answers=True)
    heartbeat.stop()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite locks no single rows")
def test_a_locked_node_row_does_not_stop_the_counter(tmp_path: Path) -> None:
    # Given a process that was frozen in the middle of a claim, and with it a lock on the node's row
    node = make_node()
    heartbeat = Heartbeat(node.pk, tmp_path)
    beating = threading.Thread(target=heartbeat.beat, kwargs={"engine_answers": True})
    with transaction.atomic():
        Node.objects.select_for_update().get(pk=node.pk)

        # When another worker of the node beats, I expect its counter to move
        beating.start()
        wait_for(lambda: Worker.objects.get(pk=heartbeat.worker_id).counter == 1, 5, "the beat")
    beating.join(10)
    heartbeat.stop()


def test_a_node_is_seen_only_while_its_engine_answers(tmp_path: Path) -> None:
    # Given a worker
    node = make_node()
    heartbeat = Heartbeat(node.pk, tmp_path)
    node.refresh_from_db()
    registered_at = node.seen_at

    # When its engine does not answer, I expect the counter to move, and the node not to be seen
    assert heartbeat.beat(engine_answers=False)
    node.refresh_from_db()
    assert (Worker.objects.get().counter, node.seen_at) == (1, registered_at)

    # When it does, I expect both
    assert heartbeat.beat(engine_answers=True)
    node.refresh_from_db()
    assert Worker.objects.get().counter == 2
    assert registered_at is not None
    assert node.seen_at is not None
    assert node.seen_at > registered_at
    heartbeat.stop()


def test_abandoned_locks_are_removed_when_a_worker_starts(tmp_path: Path) -> None:
    # Given a worker that lives, one that is dead and has a row, and a lock that a killed process left without a row
    node = make_node()
    living = Heartbeat(node.pk, tmp_path)
    dead, abandoned = tmp_path / "locks" / "dead.lock", tmp_path / "locks" / "abandoned.lock"
    for path in (dead, abandoned):
        path.touch()
    make_worker(node, lock_path=str(dead))

    # When another starts
    another = Heartbeat(node.pk, tmp_path)

    # I expect only the lock without a row to be gone
    locks = {path.stem for path in (tmp_path / "locks").iterdir()}
    assert locks == {"dead", str(living.worker_id), str(another.worker_id)}
    for heartbeat in (living, another):
        heartbeat.stop()


def test_the_lock_of_a_worker_that_registers_meanwhile_is_kept(tmp_path: Path) -> None:
    # Given a worker that registers while another starts, and dies at once
    late = tmp_path / "locks" / "late.lock"

    def register_late(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        result = execute(sql, *rest)
        if sql.startswith("SELECT") and "lock_path" in sql:
            late.touch()
        return result

    # When the other has started
    with connection.execute_wrapper(register_late):
        heartbeat = Heartbeat(make_node().pk, tmp_path)

    # I expect the lock to be left, which shows others at once that its worker is dead
    assert late.exists()
    heartbeat.stop()
