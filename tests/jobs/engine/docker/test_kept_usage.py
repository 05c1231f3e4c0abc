"""Where the usage of containers is kept: below the parent that the daemon was told, and only if that is possible."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from jobs.engine.docker.kept_usage import KeptUsage, _configured_parent
from jobs.engine.docker.local_daemon import LocalDaemon, Process
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


class ThisProcess(LocalDaemon):
    """A daemon on this host, played by the process of the test."""

    def __init__(self) -> None:
        super().__init__("unix:///nowhere", EngineIntervals())

    def process(self) -> Process:
        return Process(os.getpid(), "1")


def test_a_daemon_is_asked_once() -> None:
    # Given an engine whose control groups are made by systemd
    kept = KeptUsage(ThisProcess())
    asked: list[str] = []

    def info() -> dict[str, Any]:
        asked.append("info")
        return {"CgroupDriver": "systemd", "CgroupVersion": "2"}

    # When parents are wanted for two containers
    parents = [kept.parent_for(name, info) for name in ("one", "two")]

    # I expect none: only systemd could remove them
    assert parents == ["", ""]
    assert asked == ["info"]


def test_an_engine_over_tcp_is_not_asked_and_keeps_nothing() -> None:
    # Given an engine that may be on another host
    kept = KeptUsage(LocalDaemon("tcp://127.0.0.1:1", EngineIntervals()))

    def info() -> dict[str, Any]:
        raise AssertionError("the engine was asked")

    # I expect no parent for its containers, and nothing to be known
    assert kept.parent_for("name", info) == ""
    kept.learn({"CgroupDriver": "cgroupfs", "CgroupVersion": "2"})
    assert kept.parent_for("name", info) == ""
    assert kept.usage({"HostConfig": {"CgroupParent": "/docker/name"}}) is None
    assert kept.names() == []
    kept.forget("name")
