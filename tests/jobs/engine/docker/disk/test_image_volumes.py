"""Volumes of images are removed with their container, even if the engine cannot do that."""

import os
from pathlib import Path

import pytest

from jobs.engine.docker.disk import DiskOfEngine, ImageVolumes
from jobs.engine.docker.local_daemon import Process
from jobs.engine.docker.transport import EngineClient
from orchestrator_site.base.intervals import EngineIntervals
from tests.jobs.engine.docker.scripted_daemon import ScriptedDaemon, answer

pytestmark = pytest.mark.stateless

REMOVED, TOO_DEEP = answer(204, None), answer(500, {"message": "openat: too many open files"})


@pytest.fixture
def volumes(daemon: ScriptedDaemon) -> ImageVolumes:
    disk = DiskOfEngine()
    disk.learn({"DockerRootDir": "/"}, Process(os.getpid(), "0"))
    return ImageVolumes(EngineClient(daemon.host, EngineIntervals()), disk)


def mount(name: str, source: Path | str, **values: object) -> dict[str, object]:
    return {"Type": "volume", "Name": name, "Source": str(source), "RW": True, **values}


def test_a_container_without_volumes_costs_no_call(volumes: ImageVolumes, daemon: ScriptedDaemon) -> None:
    volumes.learn("job", None)
    volumes.learn("job", [mount("init", "/init", RW=False), {"Type": "bind", "Source": "/x", "RW": True}])

    volumes.remove("job")
    volumes.remove("unknown")

    assert daemon.requests == []


def test_volumes_that_are_gone_are_forgotten(volumes: ImageVolumes, daemon: ScriptedDaemon, tmp_path: Path) -> None:
    daemon.answers["DELETE /v1.41/volumes/v1?force=1"] = REMOVED
    volumes.learn("job", [mount("v1", tmp_path)])

    volumes.remove("job")
    volumes.remove("job")

    assert daemon.count("/volumes/v1") == 1
    assert tmp_path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reads the files of other processes")
def test_a_volume_that_the_engine_cannot_remove_is_emptied(volumes: ImageVolumes, daemon: ScriptedDaemon, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").touch()
    answers = iter([TOO_DEEP, REMOVED])
    daemon.answers["/volumes/v1"] = lambda: next(answers)
    volumes.learn("job", [mount("v1", tmp_path / "data")])

    volumes.remove("job")

    assert daemon.count("/volumes/v1") == 2
    assert not (tmp_path / "data").exists()
