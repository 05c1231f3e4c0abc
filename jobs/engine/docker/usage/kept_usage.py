"""Keeps what a container has used after its end, in a parent control group for each container.

The engine removes a container's own control group when its process ends, with all figures. It makes the parent that is named in
the container's host configuration, and never removes it: that is left to this service, which therefore asks for a parent only
where it can read and remove it. See docs/adr/0020-usage-from-parent-control-groups.md.
"""

import json
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from jobs.engine.docker.local_daemon import LocalDaemon, Process
from jobs.engine.docker.usage.control_groups import ControlGroups
from jobs.engine.docker.usage.parents import DirectoryParents, Parents, SliceParents
from jobs.engine.protocol import Usage

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
        self._parents: Parents = DirectoryParents("")

    def learn(self, info: Mapping[str, Any], process: Process | None) -> None:
        """Find out where the engine's control groups are, given the answer to `GET /info` and its process on this machine."""
        driver, unified = str(info.get("CgroupDriver")), str(info.get("CgroupVersion")) == "2"
        with self._lock:
            known = (self._seen, self._driver, self._unified)
            self._asked, self._driver, self._unified = process, driver, unified
            if (process, driver, unified) != known:
                self._find(process)

    def parent_for(self, name: str, ask: Callable[[], object]) -> str:
        """Return the parent control group for a new container; empty if its usage cannot be kept.

        `ask` lets the engine's answer be learned, which is done once for each of its starts: it may have another driver by then,
        which refuses the parents of this one.
        """
        if not self._is_up_to_date() and self._local.process() is not None:
            ask()
        with self._lock:
            return self._parents.reference(name) if self._groups else ""

    def _is_up_to_date(self) -> bool:
        with self._lock:
            current = self._groups is None or (self._groups.exist and self._seen == self._asked)
            return bool(self._driver) and current

    def usage(self, inspected: Mapping[str, Any]) -> Usage | None:
        """Return what a container has used, given the answer to `GET /containers/<name>/json`."""
        groups = self._groups_of(inspected)
        return groups.usage(self._parents.group(_parent_of(inspected))) if groups else None

    def keeps(self, inspected: Mapping[str, Any]) -> bool:
        """Return whether the usage of a container will be known after its end."""
        return self._groups_of(inspected) is not None

    def _groups_of(self, inspected: Mapping[str, Any]) -> ControlGroups | None:
        groups = self._current_groups()
        return groups if groups and self._parents.includes(_parent_of(inspected)) else None

    def names(self) -> list[str]:
        """Return the names under which containers were created whose usage is kept."""
        groups = self._current_groups()
        directories = groups.children(self._parents.all_group()) if groups else []
        return [name for directory in directories if (name := self._parents.name(directory))]

    def forget(self, name: str) -> None:
        """Remove the parent of the container that was created under this name, if it has ended."""
        reference = self._parents.reference(name)
        group = self._parents.group(reference)
        if not (groups := self._current_groups()) or groups.children(group):
            return
        if groups.has(group):
            with suppress(OSError):  # systemd is asked again when the leftovers are removed
                self._parents.release(reference)
                groups.remove(group)

    def _current_groups(self) -> ControlGroups | None:
        """Return the groups through the daemon that runs now: after a restart it is another process."""
        with self._lock:
            if self._groups and not self._groups.exist and (process := self._local.process()):
                self._find(process)
            return self._groups

    def _find(self, process: Process | None) -> None:
        self._seen, self._groups = process, None
        if process is None:
            return
        directory = Path(f"/proc/{process.pid}")
        groups = ControlGroups.of_process(directory, unified=self._unified)
        parents = self._parents_of(directory)
        if groups and parents and parents.usable and _may_remove(groups):
            self._groups, self._parents = groups, parents

    def _parents_of(self, process: Path) -> DirectoryParents | SliceParents | None:
        match self._driver:
            case "cgroupfs":
                return DirectoryParents(_configured_parent(process))
            case "systemd":
                return SliceParents(_configured_parent(process), process / "root", self._local.timeout)
            case _:
                return None


def _parent_of(inspected: Mapping[str, Any]) -> str:
    return inspected["HostConfig"].get("CgroupParent") or ""


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
