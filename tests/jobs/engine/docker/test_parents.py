"""The names of parent control groups, for both drivers."""

from pathlib import Path

import pytest

from jobs.engine.docker.usage.parents import DirectoryParents, Parents, SliceParents

NAME = "orc_1-0b5e-2"


def slices(above: str) -> SliceParents:
    return SliceParents(above, Path("/nowhere"), timeout=1)


@pytest.mark.parametrize(
    ("parents", "reference", "group", "above"),
    [
        (DirectoryParents(""), "/docker/orc_1-0b5e-2", "/docker/orc_1-0b5e-2", "/docker"),
        (DirectoryParents("/jobs"), "/jobs/orc_1-0b5e-2", "/jobs/orc_1-0b5e-2", "/jobs"),
        (
            slices(""),
            r"system-orc_1\x2d0b5e\x2d2.slice",
            r"/system.slice/system-orc_1\x2d0b5e\x2d2.slice",
            "/system.slice",
        ),
        (
            slices("my-jobs.slice"),
            r"my-jobs-orc_1\x2d0b5e\x2d2.slice",
            r"/my.slice/my-jobs.slice/my-jobs-orc_1\x2d0b5e\x2d2.slice",
            "/my.slice/my-jobs.slice",
        ),
        (slices("-.slice"), r"orc_1\x2d0b5e\x2d2.slice", r"/orc_1\x2d0b5e\x2d2.slice", "/"),
    ],
)
def test_a_parent_has_the_name_of_its_container(parents: Parents, reference: str, group: str, above: str) -> None:
    assert parents.reference(NAME) == reference
    assert parents.group(reference) == group
    assert parents.all_group() == above
    assert group.rpartition("/")[0] == above.rstrip("/")

    # I expect it to be recognized
    assert parents.includes(reference)
    assert parents.name(group.rpartition("/")[2]) == NAME


@pytest.mark.parametrize(
    "reference", ["", "/system.slice", "system.slice", "system-.slice", "system-a-b.slice", "systems-a.slice", "a"]
)
def test_other_groups_are_none_of_these(reference: str) -> None:
    assert not slices("").includes(reference)
    assert slices("").name(reference) is None
    assert not DirectoryParents("").includes(reference)


def test_groups_below_the_daemons_own_are_not_used() -> None:
    assert not DirectoryParents("relative").usable
    assert DirectoryParents("").usable


def test_slices_need_systemd(tmp_path: Path) -> None:
    # Given a root directory without systemd's socket
    assert not SliceParents("", tmp_path, timeout=1).usable

    # When there is one
    (tmp_path / "run" / "systemd").mkdir(parents=True)
    (tmp_path / "run" / "systemd" / "private").touch()

    # I expect
    assert SliceParents("", tmp_path, timeout=1).usable
    assert not SliceParents("/jobs", tmp_path, timeout=1).usable
