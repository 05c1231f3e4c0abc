"""Where the usage of containers is kept: below the parent that the daemon was told, and only if that is possible."""

import json
import os
from pathlib import Path

import pytest

from jobs.engine.docker.local_daemon import LocalDaemon, Process
from jobs.engine.docker.usage.control_groups import ControlGroups
from jobs.engine.docker.usage.kept_usage import KeptUsage, _configured_parent
from jobs.engine.docker.usage.parents import Parents
from orchestrator_site.base.intervals import EngineIntervals


def process_with(directory: Path, *arguments: str, config: str | None = None, path: str = "etc/docker/daemon.json") -> Path:
    """Make the directory of a dockerd in /proc."""
    (directory / "cmdline").write_bytes(b"\0".join(map(str.encode, ("dockerd", *arguments, ""))))
    if config is not None:
        file = directory / "root" / path
        file.parent.mkdir(parents=True)
        file.write_text(config)
    return directory


@pytest.mark.parametrize("arguments", [("--cgroup-parent", "/jobs"), ("--debug", "--cgroup-parent=/jobs")])
def test_the_parent_of_all_containers_is_an_option_of_the_daemon(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert _configured_parent(process_with(tmp_path, *arguments)) == "/jobs"


def test_the_parent_of_all_containers_is_in_the_usual_configuration(tmp_path: Path) -> None:
    assert _configured_parent(process_with(tmp_path, config=json.dumps({"cgroup-parent": "/jobs"}))) == "/jobs"


def test_the_parent_of_all_containers_is_in_another_configuration(tmp_path: Path) -> None:
    text = json.dumps({"cgroup-parent": "/jobs"})
    process = process_with(tmp_path, "--config-file", "/opt/daemon.json", config=text, path="opt/daemon.json")
    assert _configured_parent(process) == "/jobs"


@pytest.mark.parametrize("config", [None, "", "[]", "{}", '{"cgroup-parent": ""}', "\xff"])
def test_there_may_be_no_parent(tmp_path: Path, config: str | None) -> None:
    assert _configured_parent(process_with(tmp_path, config=config)) == ""


THIS = Process(os.getpid(), "1")


class ThisProcess(LocalDaemon):
    """A daemon on this host, played by the process of the test."""

    def __init__(self) -> None:
        super().__init__("unix:///nowhere", EngineIntervals())

    def process(self) -> Process:
        return THIS


def test_a_daemon_is_asked_once() -> None:
    # Given an engine with a driver whose control groups cannot be removed
    kept = KeptUsage(ThisProcess())
    asked: list[str] = []

    def ask() -> None:
        asked.append("info")
        kept.learn({"CgroupDriver": "another", "CgroupVersion": "2"}, THIS)

    # When parents are wanted for two containers
    parents = [kept.parent_for(name, ask) for name in ("one", "two")]

    # I expect none
    assert parents == ["", ""]
    assert asked == ["info"]


class OnePlace(Parents):
    """Parents in one directory, whose maker records which of them it has released."""

    def __init__(self) -> None:
        self.released: list[str] = []

    def reference(self, name: str) -> str:
        return f"{name}.slice"

    def includes(self, reference: str) -> bool:
        return reference.endswith(".slice")

    def group(self, reference: str) -> str:
        return f"/above.slice/{reference}"

    def all_group(self) -> str:
        return "/above.slice"

    def name(self, directory: str) -> str | None:
        return directory.removesuffix(".slice") if directory.endswith(".slice") else None

    def release(self, reference: str) -> None:
        self.released.append(reference)


def test_a_slice_is_released_before_it_is_removed_unless_something_runs_there(tmp_path: Path) -> None:
    # Given slices of which one has a container
    kept, parents = KeptUsage(ThisProcess()), OnePlace()
    kept._parents, kept._groups = parents, ControlGroups(True, tmp_path, tmp_path, (tmp_path,))
    for directory in ("ended.slice", "running.slice/docker-1.scope", "docker-2.scope"):
        (tmp_path / "above.slice" / directory).mkdir(parents=True)
    assert sorted(kept.names()) == ["ended", "running"]

    # When
    for name in ("ended", "running", "unknown"):
        kept.forget(name)

    # I expect only the empty one to be released: systemd ends what runs in a slice that it stops
    assert parents.released == ["ended.slice"]
    assert kept.names() == ["running"]


def test_the_usage_of_a_running_process_is_kept_below_its_parent(tmp_path: Path) -> None:
    # Given
    kept = KeptUsage(ThisProcess())
    kept._parents, kept._groups = OnePlace(), ControlGroups(True, tmp_path, tmp_path, (tmp_path,))

    # I expect only such a container's usage to be kept
    assert kept.keeps({"HostConfig": {"CgroupParent": "job.slice"}})
    assert not kept.keeps({"HostConfig": {"CgroupParent": ""}})


def test_an_engine_over_tcp_is_not_asked_and_keeps_nothing() -> None:
    # Given an engine that may be on another host
    kept = KeptUsage(LocalDaemon("tcp://127.0.0.1:1", EngineIntervals()))

    def ask() -> None:
        raise AssertionError("the engine was asked")

    # I expect no parent for its containers, and nothing to be known
    assert kept.parent_for("name", ask) == ""
    kept.learn({"CgroupDriver": "cgroupfs", "CgroupVersion": "2"}, None)
    assert kept.parent_for("name", ask) == ""
    assert kept.usage({"HostConfig": {"CgroupParent": "/docker/name"}}) is None
    assert kept.names() == []
    kept.forget("name")
