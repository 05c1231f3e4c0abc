"""When a job has to be ended because the disk is almost full, and which."""

import pytest

from jobs.engine.protocol import MAX_RESERVE_BYTES, DiskSpace, DiskUse
from jobs.worker.disk.relief import Relief
from orchestrator_site.base.intervals import DiskIntervals

pytestmark = pytest.mark.stateless

GIB = 1024**3
PAUSE = DiskIntervals().relief


def space(free: int, files_free: int = 10**6, size: int = 1000 * GIB) -> DiskSpace:
    return DiskSpace(size=size, used=size - free, free=free, files=10**6, files_used=10**6 - files_free)


@pytest.mark.parametrize(
    ("seen", "needed"),
    [
        (space(2 * GIB), False),
        (space(2 * GIB - 1), True),
        (space(GIB, size=10 * GIB), False),
        (space(GIB // 2 - 1, size=10 * GIB), True),
        (space(100 * GIB, files_free=20_000), False),
        (space(100 * GIB, files_free=19_999), True),
        (DiskSpace(size=100 * GIB, used=0, free=100 * GIB), False),  # a file system without a number of files
    ],
)
def test_a_disk_keeps_a_reserve(seen: DiskSpace, needed: bool) -> None:
    assert Relief(DiskIntervals()).is_needed(seen, 0) is needed
    assert seen.reserve <= MAX_RESERVE_BYTES


def test_another_job_is_ended_if_someone_goes_on_filling_the_disk() -> None:
    relief = Relief(DiskIntervals())
    assert relief.is_needed(space(2 * GIB - 1), 0)

    assert not relief.is_needed(space(2 * GIB - 1), 1)
    assert not relief.is_needed(space(int(1.6 * GIB)), 2)
    assert relief.is_needed(space(int(1.4 * GIB)), 3)
    assert not relief.is_needed(space(int(1.4 * GIB)), 3 + PAUSE - 0.1)
    assert relief.is_needed(space(int(1.4 * GIB)), 3 + PAUSE)


def test_a_full_disk_does_not_end_one_job_after_the_other_at_once() -> None:
    relief = Relief(DiskIntervals())
    assert relief.is_needed(space(0), 0)

    assert not relief.is_needed(space(0), 0.5)
    assert relief.is_needed(space(0), PAUSE)


def test_space_that_was_freed_begins_a_new_story() -> None:
    relief = Relief(DiskIntervals())
    assert relief.is_needed(space(GIB), 0)
    assert not relief.is_needed(space(50 * GIB), 1)

    assert relief.is_needed(space(GIB), 2)


@pytest.mark.parametrize(
    ("seen", "uses", "chosen"),
    [
        (space(GIB), {"a": DiskUse(3 * GIB), "b": DiskUse(4 * GIB, 1)}, "b"),
        (space(GIB), {"a": DiskUse(GIB // 4)}, "a"),
        (space(GIB), {"a": DiskUse(GIB // 4 - 1)}, None),  # to end it would help nobody
        (space(GIB), {}, None),
        (space(90 * GIB, files_free=1), {"a": DiskUse(4 * GIB, 5000), "b": DiskUse(0, 6000)}, "b"),
        (space(90 * GIB, files_free=1), {"a": DiskUse(4 * GIB, 2499)}, None),
        (space(90 * GIB, files_free=1), {"a": DiskUse(4 * GIB)}, None),  # the engine does not count files
    ],
)
def test_the_job_that_uses_the_most_is_chosen(seen: DiskSpace, uses: dict[str, DiskUse], chosen: str | None) -> None:
    assert Relief.choose(seen, uses) == chosen
