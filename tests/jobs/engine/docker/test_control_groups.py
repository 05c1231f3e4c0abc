"""Control groups of both versions, as directories with the kernel's files."""

from pathlib import Path

import pytest

from jobs.engine.docker.usage.control_groups import ControlGroups
from jobs.engine.protocol import Usage

VERSION_1 = """\
24 1 0:22 / / rw - ext4 /dev/vda rw
30 24 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
34 30 0:29 / /sys/fs/cgroup/unified rw shared:5 - cgroup2 cgroup2 rw
"""
VERSION_2 = "31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
OF_A_CONTAINER = "31 24 0:27 /docker/0123 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
GROUP = "/docker/job-1"


@pytest.fixture
def process(tmp_path: Path) -> Path:
    """The directory of a process in /proc."""
    (tmp_path / "root" / "sys" / "fs" / "cgroup").mkdir(parents=True)
    return tmp_path


def groups(process: Path, mounts: str, *, unified: bool) -> ControlGroups:
    (process / "mountinfo").write_text(mounts)
    found = ControlGroups.of_process(process, unified=unified)
    assert found is not None
    return found


def write(process: Path, hierarchy: str, **files: str) -> None:
    """Write files of `GROUP`; two underscores in a name stand for a dot."""
    directory = process / "root" / "sys" / "fs" / "cgroup" / hierarchy / GROUP.lstrip("/")
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)


def test_the_usage_in_version_1(process: Path) -> None:
    write(process, "cpu,cpuacct", cpuacct__usage="33985194\n")
    write(process, "memory", memory__max_usage_in_bytes="4284416\n")

    assert groups(process, VERSION_1, unified=False).usage(GROUP) == Usage(0.033985194, 4284416)


def test_the_usage_in_version_2(process: Path) -> None:
    write(process, "", cpu__stat="usage_usec 33985\nuser_usec 20000\nsystem_usec 13985\n", memory__peak="4284416\n")

    assert groups(process, VERSION_2, unified=True).usage(GROUP) == Usage(0.033985, 4284416)


def test_the_peak_is_unknown_before_linux_5_19(process: Path) -> None:
    write(process, "", cpu__stat="usage_usec 33985\nuser_usec 20000\nsystem_usec 13985\n")

    assert groups(process, VERSION_2, unified=True).usage(GROUP) == Usage(0.033985, None)


def test_the_peak_is_unknown_where_groups_do_not_count_what_is_below_them(process: Path) -> None:
    write(process, "cpu,cpuacct", cpuacct__usage="33985194\n")
    write(process, "memory", memory__max_usage_in_bytes="0\n")

    assert groups(process, VERSION_1, unified=False).usage(GROUP) == Usage(0.033985194, None)


def test_nothing_is_known_of_a_group_that_no_process_was_in(process: Path) -> None:
    write(process, "", cpu__stat="usage_usec 0\nuser_usec 0\nsystem_usec 0\n", memory__peak="0\n")
    found = groups(process, VERSION_2, unified=True)

    assert found.usage(GROUP) is None
    assert found.usage("/docker/another") is None


def test_a_group_is_removed_from_all_hierarchies_of_its_version(process: Path) -> None:
    # Given a group in every hierarchy
    for hierarchy in ("cpu,cpuacct", "memory", "systemd", "unified"):
        write(process, hierarchy)
    found = groups(process, VERSION_1, unified=False)
    assert found.children("/docker") == ["job-1"]

    # When
    found.remove(GROUP)

    # I expect
    assert found.children("/docker") == []
    root = process / "root" / "sys" / "fs" / "cgroup"
    assert sorted(path.parent.parent.name for path in root.glob("*/docker/job-1")) == ["unified"]


def test_an_interrupted_removal_is_found_later(process: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a group in three hierarchies, and a process that is killed after two of them
    for hierarchy in ("cpu,cpuacct", "memory", "systemd"):
        write(process, hierarchy)
    found = groups(process, VERSION_1, unified=False)
    rmdir, removed = Path.rmdir, list[Path]()

    def rmdir_twice(path: Path) -> None:
        if len(removed) == 2:
            raise KeyboardInterrupt
        removed.append(path)
        rmdir(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rmdir", rmdir_twice)
        with pytest.raises(KeyboardInterrupt):
            found.remove(GROUP)

    # I expect the group to be listed still, and the rest to be removed
    assert found.children("/docker") == ["job-1"]
    found.remove(GROUP)
    assert found.children("/docker") == []


def test_a_group_that_others_are_below_is_left(process: Path) -> None:
    write(process, "")
    write(process, f"{GROUP}/container")
    found = groups(process, VERSION_2, unified=True)

    found.remove("/docker")

    assert found.children("/docker") == ["job-1"]


@pytest.mark.parametrize("mounts", ["", VERSION_1, OF_A_CONTAINER], ids=["none", "the other version", "of a container"])
def test_other_mounts_are_not_used(process: Path, mounts: str) -> None:
    (process / "mountinfo").write_text(mounts.replace("cgroup2", "cgroup2" if mounts == OF_A_CONTAINER else "tmpfs"))

    assert ControlGroups.of_process(process, unified=True) is None


def test_a_process_that_has_ended_has_none(tmp_path: Path) -> None:
    assert ControlGroups.of_process(tmp_path / "gone", unified=True) is None
