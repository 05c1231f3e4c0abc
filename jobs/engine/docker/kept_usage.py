"""Keeps what a container has used after its end, in a parent control group for each container.

The engine removes a container's own control group when its process ends, with all figures. It makes the parent that is named in
the container's host configuration, and never removes it: that is left to this service, which therefore asks for a parent only
where it can read and remove it. See docs/adr/0020-usage-from-parent-control-groups.md.
"""

import json
import os
import threading
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from jobs.engine.docker.control_groups import ControlGroups
from jobs.engine.docker.local_daemon import LocalDaemon, Process
from jobs.engine.protocol import Usage

_DRIVER: Final = "cgroupfs"  # systemd's parents are units, which only systemd may remove
_DEFAULT_PARENT: Final = "/docker"  # of all containers, unless the daemon was told another
_PARENT_OPTION: Final = "--cgroup-parent"
_CONFIG_OPTION: Final = "--config-file"
_DEFAULT_CONFIG: Final = "/etc/docker/daemon.json"


class KeptUsage:
    """The parent control groups of one engine's containers. Thread-safe."""

    def __init__(self, local: LocalDaemon) -> None:
        self._local = local
        self._lock = threading.Lock()
        self._driver = ""
        self._unified = False
        self._asked: Process | None = None  # the daemon that has reported the driver
        self._seen: Process | None = None  # the daemon through which the groups are seen
        self._groups: ControlGroups | None = None
        self._parent = ""

    def learn(self, info: Mapping[str, Any]) -> None:
        """Find out where the engine's control groups are, given the answer to `GET /info`."""
        driver, unified = str(info.get("CgroupDriver")), str(info.get("CgroupVersion")) == "2"
        process = self._local.process()
        with self._lock:
            known = (self._seen, self._driver, self._unified)
            self._asked, self._driver, self._unified = process, driver, unified
            if (process, driver, unified) != known:
                self._find(process)

    def parent_for(self, name: str, info: Callable[[], Mapping[str, Any]]) -> str:
        """Return the parent control group for a new container; empty if its usage cannot be kept.

        `info` asks the engine, which is done once for each of its starts: it may have another driver by then, which refuses the
        parents of this one.
        """
        if not self._is_up_to_date() and self._local.process() is not None:
            self.learn(info())
        with self._lock:
            return self._group(name) if self._groups else ""

    def _is_up_to_date(self) -> bool:
        with self._lock:
            current = self._groups is None or (self._groups.exist and self._seen == self._asked)
            return bool(self._driver) and current

    def usage(self, inspected: Mapping[str, Any]) -> Usage | None:
        """Return what a container has used, given the answer to `GET /containers/<name>/json`."""
        parent = inspected["HostConfig"].get("CgroupParent") or ""
        groups = self._current_groups()
        return groups.usage(parent) if groups and parent.startswith(f"{self._parent}/") else None

    def names(self) -> list[str]:
        """Return the names under which containers were created whose usage is kept."""
        groups = self._current_groups()
        return groups.children(self._parent) if groups else []

    def forget(self, name: str) -> None:
        """Remove the parent of the container that was created under this name, if it has ended."""
        if groups := self._current_groups():
            groups.remove(self._group(name))

    def _group(self, name: str) -> str:
        return f"{self._parent}/{name}"

    def _current_groups(self) -> ControlGroups | None:
        """Return the groups through the daemon that runs now: after a restart it is another process."""
        with self._lock:
            if self._groups and not self._groups.exist and (process := self._local.process()):
                self._find(process)
            return self._groups

    def _find(self, process: Process | None) -> None:
        self._seen, self._groups = process, None
        if process is None or self._driver != _DRIVER:
            return
        directory = Path(f"/proc/{process.pid}")
        self._parent = _configured_parent(directory) or _DEFAULT_PARENT
        groups = ControlGroups.of_process(directory, unified=self._unified)
        if groups and self._parent.startswith("/") and _may_remove(groups):  # others are relative to the daemon's own group
            self._groups = groups


def _may_remove(groups: ControlGroups) -> bool:
    return all(os.access(hierarchy, os.W_OK | os.X_OK) for hierarchy in groups.hierarchies)


def _configured_parent(process: Path) -> str:
    """Return the `cgroup-parent` of a dockerd, which may limit all of its containers; empty if it has none."""
    try:
        options = _options((process / "cmdline").read_bytes().decode(errors="replace").split("\0"))
        if parent := options.get(_PARENT_OPTION):
            return parent
        path = options.get(_CONFIG_OPTION, _DEFAULT_CONFIG)
        return str(json.loads((process / "root" / path.lstrip("/")).read_text()).get("cgroup-parent") or "")
    except (OSError, ValueError, AttributeError):
        return ""


def _options(arguments: list[str]) -> dict[str, str]:
    """Return the options in an argument vector, written as `--name value` or `--name=value`."""
    options = dict(pairwise(arguments))
    return options | dict(argument.split("=", 1) for argument in arguments if "=" in argument)
