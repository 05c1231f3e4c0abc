"""Which container has to be measured next, and when none has to be."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.engine.protocol import DiskSpace, DiskUse
from jobs.worker.disk.ledger import BYTES_PER_FILE, Ledger, Written
from orchestrator_site.base.intervals import DiskIntervals

pytestmark = pytest.mark.stateless

MIB = 1024**2
LIMIT = 100 * MIB
MAX_FILES = LIMIT // BYTES_PER_FILE
SIZE, FILES = 10**15, 10**9


def space(used: int, files_used: int = 0) -> DiskSpace:
    return DiskSpace(size=SIZE, used=used, free=SIZE - used, files=FILES, files_used=files_used)


def ledger_with(*names: str, is_new: bool = True) -> Ledger:
    ledger = Ledger(LIMIT, DiskIntervals())
    ledger.see(space(0))
    for name in names:
        ledger.add(name, 0, is_new=is_new)
    return ledger


def measured(ledger: Ledger, name: str, use: DiskUse, *, now: float, took: float = 0.0) -> None:
    ledger.record(name, use, ledger.written, now - took, now)


def test_a_new_container_is_measured_when_it_may_have_exceeded_its_limit() -> None:
    ledger = ledger_with("a")
    ledger.see(space(LIMIT))
    assert ledger.due(["a"], 0) is None
    assert not ledger.may_exceed("a")

    ledger.see(space(LIMIT + 1))

    assert ledger.due(["a"], 0) == "a"
    assert ledger.may_exceed("a")
    assert not ledger.counts_files("a")


def test_files_count_even_if_they_are_empty() -> None:
    ledger = ledger_with("a")
    ledger.see(space(0, MAX_FILES))
    assert ledger.due(["a"], 0) is None

    ledger.see(space(0, MAX_FILES + 1))

    assert (ledger.due(["a"], 0), ledger.counts_files("a")) == ("a", True)


def test_a_container_that_existed_before_is_measured_at_once() -> None:
    ledger = ledger_with("a", is_new=False)
    assert (ledger.due(["a"], 0), ledger.counts_files("a")) == ("a", True)

    measured(ledger, "a", DiskUse(90 * MIB, 10), now=0)

    assert ledger.due(["a"], 1000) is None


def test_what_is_measured_counts_from_then_on() -> None:
    ledger = ledger_with("a")
    ledger.see(space(200 * MIB))
    measured(ledger, "a", DiskUse(90 * MIB), now=0)

    ledger.see(space(210 * MIB))
    assert ledger.due(["a"], 1) is None
    ledger.see(space(211 * MIB))
    assert ledger.due(["a"], 1) == "a"


def test_space_that_others_free_hides_nothing_that_was_seen() -> None:
    ledger = ledger_with("a")
    for used in (60, 0, 60):
        ledger.see(space(used * MIB))

    assert ledger.due(["a"], 0) == "a"


def test_what_was_hidden_is_found_in_minutes() -> None:
    ledger = ledger_with("a")
    ledger.see(space(200 * MIB))
    measured(ledger, "a", DiskUse(0), now=0)
    oldest = DiskIntervals().oldest

    assert ledger.due(["a"], oldest) is None  # nothing was written at all
    ledger.see(space(200 * MIB + 1))
    assert ledger.due(["a"], oldest - 1) is None
    assert ledger.due(["a"], oldest) == "a"


def test_the_one_that_was_not_measured_for_longest_comes_first() -> None:
    ledger = ledger_with("a", "b", "c")
    ledger.see(space(LIMIT + 1))
    for moment, name in enumerate(("b", "a"), start=1):
        measured(ledger, name, DiskUse(LIMIT), now=moment)
    ledger.see(space(LIMIT + 2))

    assert ledger.due(["a", "b"], 10) == "b"
    assert ledger.due(["a", "b", "c"], 10) == "c"


def test_measuring_takes_a_part_of_the_time_only() -> None:
    ledger = ledger_with("a", "b")
    ledger.see(space(LIMIT + 1))
    measured(ledger, "a", DiskUse(LIMIT), now=0, took=2)
    ledger.see(space(LIMIT + 2))

    assert ledger.due(["a", "b"], 1.9) is None
    assert ledger.due(["a", "b"], 2) == "b"
    assert ledger.due(["a"], 7.9) is None
    assert ledger.due(["a"], 8) == "a"


def test_without_any_sign_all_are_measured_in_turn_and_a_twentieth_of_the_time() -> None:
    ledger = Ledger(LIMIT, DiskIntervals())
    ledger.add("a", 0, is_new=True)
    ledger.add("b", 0, is_new=True)
    ledger.see(None)

    assert ledger.due(["a", "b"], 0) == "a"
    assert not ledger.may_exceed("a")
    measured(ledger, "a", DiskUse(0), now=1, took=1)
    assert ledger.due(["a", "b"], 19.9) is None
    assert ledger.due(["a", "b"], 20) == "b"


def test_after_a_time_without_a_sign_nothing_is_known() -> None:
    ledger = ledger_with("a")
    ledger.see(None)
    ledger.see(space(0))

    assert (ledger.due(["a"], 0), ledger.may_exceed("a")) == ("a", True)


def test_a_container_that_cannot_be_measured_holds_up_no_other() -> None:
    ledger = ledger_with("a", "b")
    ledger.see(space(LIMIT + 1))
    ledger.put_off("a", 0, 0)

    assert ledger.due(["a", "b"], 0) == "b"
    assert ledger.due(["a"], DiskIntervals().retry - 0.1) is None
    assert ledger.due(["a"], DiskIntervals().retry) == "a"


def test_a_container_that_is_gone_is_forgotten() -> None:
    ledger = ledger_with("a")
    ledger.remove("a")
    ledger.remove("a")
    ledger.see(space(LIMIT + 1))
    measured(ledger, "a", DiskUse(LIMIT + 1), now=0)
    ledger.put_off("a", 0, 0)

    assert (ledger.due(["a"], 0), ledger.may_exceed("a"), ledger.counts_files("a")) == (None, False, False)


@pytest.mark.parametrize(
    ("use", "sentence"),
    [
        (DiskUse(LIMIT), ""),
        (DiskUse(LIMIT + MIB), "the job had written 101 MiB to the disk; the limit is 100 MiB"),
        (DiskUse(0, MAX_FILES), ""),
        (DiskUse(0, MAX_FILES + 1), "the job had 6401 files and directories on the disk; the limit is 6400"),
    ],
)
def test_an_excess_is_a_sentence(use: DiskUse, sentence: str) -> None:
    assert ledger_with().excess(use) == sentence


@dataclass
class _Disk:
    """A disk on which containers write, delete and are measured, as the test says."""

    ledger: Ledger
    base: int = 10**9
    sizes: dict[str, int] = field(default_factory=dict)

    def see(self) -> None:
        self.ledger.see(space(self.base + sum(self.sizes.values())))


WRITES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 80)), max_size=30)


@given(WRITES)
def test_no_container_exceeds_its_limit_unnoticed_unless_others_delete_meanwhile(writes: list[tuple[str, int]]) -> None:
    # Given containers that write by turns, and a look after each, at which all that are due are measured
    disk = _Disk(Ledger(LIMIT, DiskIntervals()), sizes=dict.fromkeys("abc", 0))
    disk.see()
    for name in disk.sizes:
        disk.ledger.add(name, 0, is_new=True)
    for moment, (writer, amount) in enumerate(writes):
        disk.sizes[writer] += amount * MIB
        disk.see()
        noticed = set()
        while (due := disk.ledger.due(disk.sizes.keys() - noticed, moment)) is not None:
            measured(disk.ledger, due, DiskUse(disk.sizes[due]), now=moment)
            if disk.ledger.excess(DiskUse(disk.sizes[due])):
                noticed.add(due)
        # I expect each one that exceeds its limit to be found at that look
        assert {name for name, size in disk.sizes.items() if size > LIMIT} <= noticed
        for name in noticed:
            disk.sizes[name] = 0
            disk.ledger.remove(name)
            disk.see()
            disk.ledger.add(name, 0, is_new=True)


def test_a_ledger_begins_with_nothing_written() -> None:
    assert ledger_with().written == Written(0, 0)
