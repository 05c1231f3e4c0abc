"""A disk that jobs fill up although each of them stays below its limit."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.engine.docker import DockerEngine
from jobs.states import Reason, State
from tests.helpers.factories import make_job
from tests.helpers.loop_disks import engine_on_disk
from tests.helpers.workers import Workers, completed

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.engine,
    pytest.mark.any_engine,
    pytest.mark.stateless,
]


@pytest.fixture
def full_workers(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[Workers]:
    """Workers on an engine with a disk of 400 MiB."""
    with engine_on_disk(tmp_path / "disk", tmp_path_factory.mktemp("e"), "ext4", 400) as host:
        workers = Workers(DockerEngine(host), tmp_path)
        workers.set_intervals(disk={"look": 0.1})
        yield workers
        workers.stop()


def test_the_job_that_fills_a_disk_is_ended_before_it_is_full(full_workers: Workers) -> None:
    # Given a job that fills the disk, below its limit, and one that writes a file of its own every moment
    fills = "i=0; while true; do dd if=/dev/zero of=$i bs=1M count=2 2>/dev/null || exit 1; i=$((i+1)); sleep 0.05; done"
    works = "i=0; while [ $i -lt 60 ]; do echo x > file || exit 1; cat file; i=$((i+1)); sleep 0.1; done"
    hostile, honest = make_job(command=fills, cpu_millis=500), make_job(command=works, cpu_millis=500)

    # When
    supervisor = full_workers.another(disk_limit=1024**4)
    full_workers.run(supervisor)
    full_workers.run(supervisor)

    # I expect the first to be ended, and the other never to be without space
    hostile = completed(hostile)
    assert (hostile.status, hostile.reason) == (State.FAILED, Reason.DISK)
    assert hostile.error.startswith("the disk was almost full")
    assert completed(honest).status == State.COMPLETED
