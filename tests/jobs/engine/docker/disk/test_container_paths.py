"""Where a container writes to its engine's disk."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.engine.docker.disk import container_paths
from jobs.engine.docker.disk.container_paths import other_paths, size_under_quota, upper_of

pytestmark = pytest.mark.stateless

MIB = 1024**2

# -- the quota of XFS, which makes a directory look like a disk of its own -------------------------------------


@pytest.mark.parametrize(
    ("asked", "blocks", "size"),
    [
        (str(100 * MIB), 25_600, 15_600 * 4096),
        (str(100 * MIB + 1), 25_600, 15_600 * 4096),  # the kernel rounds it
        (str(100 * MIB), 10**9, None),  # of the whole disk: there is no quota
        (None, 25_600, None),
    ],
)
def test_a_quota_shows_what_is_used_of_it(
    asked: str | None, blocks: int, size: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = SimpleNamespace(f_frsize=4096, f_blocks=blocks, f_bfree=blocks - 15_600)
    monkeypatch.setattr(os, "statvfs", lambda _: seen)

    assert size_under_quota(tmp_path, {"HostConfig": {"StorageOpt": {"size": asked} if asked else None}}) == size


def test_a_layer_without_a_container_has_no_quota(tmp_path: Path) -> None:
    assert size_under_quota(tmp_path / "gone", {"HostConfig": {"StorageOpt": {"size": "1"}}}) is None


# -- engines that do not say where a layer is --------------------------------------------------------------------

OVERLAY = "21 20 0:51 / {point} rw,relatime - overlay overlay rw,lowerdir=/l/1:/l/2,upperdir={upper},workdir=/w,uuid=on\n"


@pytest.mark.parametrize(
    ("mounts", "upper"),
    [
        (OVERLAY.format(point="/", upper="/data/diff"), "/data/diff"),
        ("20 1 254:0 / / rw - ext4 /dev/vda rw\n" + OVERLAY.format(point="/", upper="/data/diff"), "/data/diff"),
        (OVERLAY.format(point="/mnt", upper="/data/diff"), ""),
        (OVERLAY.format(point="/", upper="relative/diff"), ""),
        ("20 1 254:0 / / rw - ext4 /dev/vda rw\n", ""),
        ("", ""),
    ],
)
def test_the_layer_of_a_running_process_is_that_of_its_root(
    mounts: str, upper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mountinfo").write_text(mounts)
    monkeypatch.setattr(container_paths, "Path", lambda _: tmp_path / "mountinfo")

    assert upper_of(1) == upper


def test_a_process_that_has_ended_has_no_layer() -> None:
    assert (upper_of(0), upper_of(2**22 + 1)) == ("", "")


def test_only_what_a_container_may_write_counts() -> None:
    mounts = json.loads(
        """[{"Type": "volume", "Source": "/v/1", "RW": true}, {"Type": "volume", "Source": "/v/2", "RW": false},
            {"Type": "tmpfs", "Source": "", "RW": true}, {"Type": "bind", "Source": "/host", "RW": true}]"""
    )

    assert other_paths({"Mounts": mounts, "HostsPath": "/c/hosts", "ResolvConfPath": ""}) == ["/v/1", "/c/hosts"]
    assert other_paths({"Mounts": None}) == []
