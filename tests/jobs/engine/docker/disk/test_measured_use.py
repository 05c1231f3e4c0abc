"""Which files of a container are measured, and when the engine is asked instead."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.engine.docker.disk import DiskOfEngine, MeasuredUse, measured_use
from jobs.engine.docker.local_daemon import Process
from jobs.engine.docker.transport import EngineClient
from jobs.engine.protocol import DiskUse
from jobs.errors import ContainerNotFound, EngineUnavailable, Unmeasurable
from orchestrator_site.base.intervals import EngineIntervals
from tests.jobs.engine.docker.scripted_daemon import ScriptedDaemon, answer

pytestmark = pytest.mark.stateless

MIB = 1024**2
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root reads the files of other processes")


def container(layer: Path | None, **values: Any) -> dict[str, Any]:
    graph = {"Name": "overlay2", "Data": {"UpperDir": str(layer)}} if layer else {"Name": "btrfs", "Data": None}
    return {"State": {"Pid": 0}, "GraphDriver": graph, "HostConfig": {}, "Mounts": [], **values}


Make = Callable[..., MeasuredUse]


@pytest.fixture
def measured(daemon: ScriptedDaemon, tmp_path: Path) -> Make:
    """Make the measurements of an engine whose process is this one, or none on this machine."""

    def make(described: dict[str, Any], *, is_local: bool = True) -> MeasuredUse:
        daemon.answers["/json?size=1"] = answer(200, {**described, "SizeRw": 5 * MIB})
        daemon.answers["/containers/job/json"] = answer(200, described)
        disk = DiskOfEngine()
        disk.learn({"DockerRootDir": str(tmp_path)}, Process(os.getpid(), "0") if is_local else None)
        return MeasuredUse(EngineClient(daemon.host, EngineIntervals()), disk)

    return make


@ROOT
def test_the_layer_the_volumes_and_the_engines_files_are_measured(measured: Make, tmp_path: Path) -> None:
    # Given a container with a file of 1 MiB at each place that it can write to, and at one that it cannot
    places = {name: tmp_path / name for name in ("layer", "volume", "init", "containers")}
    for directory in places.values():
        directory.mkdir()
        (directory / "file").write_bytes(bytes(MIB))
    described = container(
        places["layer"],
        Mounts=[
            {"Type": "volume", "Source": str(places["volume"]), "RW": True},
            {"Type": "volume", "Source": str(places["init"]), "RW": False},
        ],
        HostsPath=str(places["containers"] / "file"),
        HostnamePath="",
    )

    # I expect
    use = measured(described).use("job", count_files=True)
    assert 3 * MIB <= use.size < 3 * MIB + 64 * 1024
    assert use.files == 5  # with two directories


@ROOT
def test_files_are_counted_on_request_only(measured: Make, tmp_path: Path) -> None:
    assert measured(container(tmp_path)).use("job", count_files=False).files is None


@pytest.mark.parametrize("why", ["elsewhere", "another driver", "no such directory", "no du"])
def test_the_engine_is_asked_if_the_files_cannot_be_read(
    why: str, measured: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = {"another driver": None, "no such directory": tmp_path / "none"}.get(why, tmp_path)
    if why == "no du":
        monkeypatch.setattr(measured_use, "tree_size", lambda *_: None)
    made = measured(container(layer), is_local=why != "elsewhere")

    assert made.use("job", count_files=True) == DiskUse(5 * MIB)


@pytest.mark.parametrize("size", [None, -2, "much"])
def test_an_engine_that_does_not_know_the_size_is_no_answer(measured: Make, daemon: ScriptedDaemon, size: object) -> None:
    made = measured(container(None))
    daemon.answers["/json?size=1"] = answer(200, {"SizeRw": size})

    with pytest.raises(EngineUnavailable):
        made.use("job", count_files=False)


def test_files_that_the_engine_cannot_measure_are_told_from_an_engine_in_trouble(measured: Make, daemon: ScriptedDaemon) -> None:
    made = measured(container(None))
    daemon.answers["/json?size=1"] = answer(200, {"SizeRw": -1})  # for a path that is longer than PATH_MAX, say

    with pytest.raises(Unmeasurable):
        made.use("job", count_files=False)


def test_a_container_that_is_gone_has_no_use(measured: Make, daemon: ScriptedDaemon) -> None:
    made = measured(container(None))
    daemon.answers["/containers/job/json"] = answer(404, {"message": "No such container: job"})

    with pytest.raises(ContainerNotFound):
        made.use("job", count_files=False)


@ROOT
@pytest.mark.parametrize(("is_running", "is_local"), [(False, True), (True, True), (False, False)])
def test_only_what_an_ended_container_has_written_is_removed(
    measured: Make, tmp_path: Path, is_running: bool, is_local: bool
) -> None:
    # Given a layer with a link that leads out of it
    layer, other = tmp_path / "layer", tmp_path / "other"
    layer.mkdir()
    other.write_text("kept")
    (layer / "link").symlink_to(other)
    made = measured(container(layer, State={"Pid": 0, "Running": is_running}), is_local=is_local)

    # I expect
    assert made.empty("job") is (is_local and not is_running)
    assert layer.exists() is (is_running or not is_local)
    assert other.read_text() == "kept"


def test_the_space_is_that_of_the_engines_directory(measured: Make, tmp_path: Path) -> None:
    space = measured(container(None)).space()

    seen = os.statvfs(tmp_path)
    assert space is not None
    assert (space.size, space.files) == (seen.f_blocks * seen.f_frsize, seen.f_files)
    assert 0 < space.used < space.size
    assert measured(container(None), is_local=False).space() is None


def test_an_almost_full_disk_is_a_warning(measured: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = measured(container(None))
    full = SimpleNamespace(f_frsize=4096, f_blocks=10**9, f_bfree=1000, f_bavail=10, f_files=0, f_ffree=0)
    monkeypatch.setattr(os, "statvfs", lambda _: full)

    (warning,) = made.warnings()
    assert "almost full" in warning
