"""The contract of every engine (`jobs.engine.protocol`): what containers have written to its disk."""

import pytest

from jobs.errors import ContainerNotFound
from tests.helpers.engines import Bench, shell
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.stateless

MIB = 1024**2


@pytest.fixture
def measured(bench: Bench) -> Bench:
    """Return an engine whose containers have to be measured."""
    if bench.engine.traits.limits_disk:
        pytest.skip("the engine ends by itself what writes too much")
    return bench


def test_what_a_container_has_written_is_measured(measured: Bench) -> None:
    # Given a container that has written nothing, and one that has written 10 MiB, most of it to files that are gone
    measured.engine.info()
    idle = measured.ended(shell("true"))
    busy = measured.ended(shell("head -c 9000000 /dev/zero > a; rm a; head -c 1048576 /dev/zero > b; mkdir c; echo > c/d"))

    # I expect what is there
    nothing, something = (measured.engine.disk_use(name, count_files=True) for name in (idle, busy))
    assert MIB <= something.size - nothing.size < 2 * MIB
    if nothing.files is not None:  # not every engine can count them
        assert something.files == nothing.files + 3
    assert measured.engine.disk_use(busy).size == something.size


def test_files_of_a_running_container_are_measured(measured: Bench) -> None:
    measured.engine.info()
    name = measured.started(shell("head -c 3145728 /dev/zero > file; exec sleep 60"))

    wait_for(lambda: measured.engine.disk_use(name).size >= 3 * MIB, 10, "the file")


def test_a_container_that_does_not_exist_has_no_use(bench: Bench) -> None:
    with pytest.raises(ContainerNotFound):
        bench.engine.disk_use("nonexistent")
