"""The limit of the storage driver: asked for where it may exist, and given up where it does not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.engine.docker import DockerEngine
from jobs.engine.docker.disk import StorageLimit
from tests.helpers.engines import DockerBench, shell
from tests.helpers.loop_disks import engine_on_disk
from tests.jobs.engine.docker.scripted_daemon import EARLY, ScriptedDaemon, answer

MIB = 1024**2
XFS, EXT4 = [["Backing Filesystem", "xfs"], ["Supports d_type", "true"]], [["Backing Filesystem", "extfs"]]
SNAPSHOTS = [["driver-type", "io.containerd.snapshotter.v1"]]
NO_PQUOTA = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"


def options_of(driver: str, status: Any, limit: int | None = 1024 * MIB) -> dict[str, str]:
    storage = StorageLimit()
    storage.learn({"Driver": driver, "DriverStatus": status})
    return storage.options(limit, lambda: 100 * MIB)


@pytest.mark.parametrize(
    ("driver", "status", "size"),
    [
        ("overlay2", XFS, 1280 * MIB),
        ("overlay2", EXT4, None),
        ("overlay2", None, None),
        ("btrfs", [["Build Version", "Btrfs v6.2"]], 1380 * MIB),  # its quota counts the image, too
        ("btrfs", SNAPSHOTS, None),
        ("zfs", [["Zpool", "tank"]], 1280 * MIB),
        ("overlayfs", SNAPSHOTS, None),
        ("vfs", None, None),
        ("devicemapper", None, None),
    ],
)
@pytest.mark.stateless
def test_a_driver_that_may_have_a_limit_is_asked_for_a_quarter_more(driver: str, status: Any, size: int | None) -> None:
    assert options_of(driver, status) == ({"size": str(size)} if size else {})


@pytest.mark.stateless
def test_a_small_limit_leaves_the_time_to_end_the_job_for_the_right_reason() -> None:
    assert options_of("zfs", None, MIB) == {"size": str(65 * MIB)}
    assert options_of("zfs", None, None) == {}


@pytest.mark.parametrize(
    ("message", "refused"),
    [
        (NO_PQUOTA, True),
        ("--storage-opt is not supported for vfs", True),
        ("Failed to enable btrfs quota for /var/lib/docker/btrfs: operation not permitted", True),
        ("No such image: --storage-opt is supported only for overlay:latest", False),  # a job's words
        ("no space left on device", False),
    ],
)
@pytest.mark.stateless
def test_a_refusal_is_recognized_and_remembered(message: str, refused: bool) -> None:
    storage = StorageLimit()
    storage.learn({"Driver": "overlay2", "DriverStatus": XFS})

    assert storage.refuses(message) is refused
    assert (storage.options(MIB, lambda: 0) == {}) is refused


@pytest.mark.stateless
def test_a_container_is_created_without_a_limit_if_the_driver_refuses_it(daemon: ScriptedDaemon) -> None:
    # Given an engine on XFS that is not mounted with `pquota`, and jobs with a limit
    info = {"ID": "0", "Name": "e", "NCPU": 2, "MemTotal": 1, "SystemTime": EARLY, "Driver": "overlay2", "DriverStatus": XFS}
    daemon.answers["/info"] = answer(200, info)
    answers = iter([answer(500, {"message": NO_PQUOTA}), answer(201, {"Id": "0"}), answer(201, {"Id": "1"})])
    daemon.answers["/containers/create"] = lambda: next(answers)
    engine = DockerEngine(daemon.host)
    engine.info()

    # When two are created
    spec = DockerBench(daemon.host, "").spec(disk_limit_bytes=MIB)
    engine.create(spec)
    engine.create(spec)

    # I expect the driver to be asked once
    assert daemon.count("/containers/create") == 3


@pytest.fixture
def btrfs_host(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[str]:
    """An engine with the storage driver `btrfs`."""
    with engine_on_disk(tmp_path / "disk", tmp_path_factory.mktemp("e"), "btrfs", 1024) as host:
        yield host


@pytest.mark.engine
@pytest.mark.any_engine
@pytest.mark.stateless
def test_a_job_cannot_write_more_than_its_driver_allows(btrfs_host: str) -> None:
    bench = DockerBench(btrfs_host, "")
    bench.engine.info()
    write = shell("dd if=/dev/zero of=/file bs=1M count=400 2>&1; ls -l /file")

    # I expect the hard limit to be 64 MiB higher than that of the job, and none without one
    limited = bench.ended(write, disk_limit_bytes=16 * MIB)
    assert "quota exceeded" in bench.printed(limited)
    assert 70 * MIB < bench.engine.disk_use(limited).size < 82 * MIB
    free = bench.ended(write)
    assert bench.engine.disk_use(free).size == 400 * MIB
    bench.clean()
