"""Files of counts: what their process wrote is there, whatever happened to it."""

from pathlib import Path

import pytest

from orchestrator_site.base.measurements import count_file
from orchestrator_site.base.measurements.count_file import CountFile, abandoned

pytestmark = pytest.mark.stateless


def the_file(directory: Path) -> Path:
    (path,) = directory.glob("*.counts")
    return path


def test_the_last_numbers_of_each_name_are_read(tmp_path: Path) -> None:
    # Given two names, one of which was written twice
    file = CountFile(tmp_path)
    file.write("jobs ü", [1.0])
    file.write("seconds", [1.0, 0.0, 2.5])
    file.write("jobs ü", [2.0])

    # I expect its second number
    assert dict(count_file.read(the_file(tmp_path))) == {"jobs ü": (2.0,), "seconds": (1.0, 0.0, 2.5)}
    file.close()


@pytest.mark.parametrize("missing", [1, 8, 17, 23])
def test_a_record_that_was_cut_short_is_left_out(tmp_path: Path, missing: int) -> None:
    # Given a process that was killed while it wrote its second record
    file = CountFile(tmp_path)
    file.write("first", [1.0])
    file.write("second", [2.0])
    file.close()
    path = the_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-missing])

    # I expect the first
    assert dict(count_file.read(path)) == {"first": (1.0,)}


def test_a_file_is_abandoned_when_its_process_has_closed_it(tmp_path: Path) -> None:
    file = CountFile(tmp_path)

    with abandoned(the_file(tmp_path)) as while_open:
        pass
    file.close()
    with abandoned(the_file(tmp_path)) as afterwards:
        pass

    assert (while_open, afterwards) == (False, True)
