"""Measures what containers have written: by their directories if this process may read them, otherwise by the engine."""

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jobs.engine.answer_stream import ANSWER_UNREADABLE
from jobs.engine.docker.disk.container_paths import other_paths, size_under_quota, upper_of
from jobs.engine.docker.disk.disk_of_engine import DiskOfEngine
from jobs.engine.docker.disk.tree_removal import remove_tree
from jobs.engine.docker.disk.tree_size import tree_files, tree_size
from jobs.engine.docker.disk.unnamed_files import unnamed_size
from jobs.engine.docker.transport import EngineClient, quoted
from jobs.engine.protocol import DiskSpace, DiskUse
from jobs.errors import EngineUnavailable, Unmeasurable

_ALMOST_FULL: Final = "the engine's disk is almost full: jobs that have written much to it are ended"


_NOT_MEASURED: Final = -1  # by the engine: a path is longer than PATH_MAX, say


class MeasuredUse:
    """What the containers of one engine have written to its disk. Thread-safe."""

    def __init__(self, client: EngineClient, disk: DiskOfEngine) -> None:
        self._client = client
        self._disk = disk

    def using(self, client: EngineClient) -> "MeasuredUse":
        """Return the same object, asking the engine through another client."""
        measured = copy.copy(self)
        measured._client = client
        return measured

    def warnings(self) -> list[str]:
        """Return a sentence if the disk is almost full."""
        space = self.space()
        return [_ALMOST_FULL] if space and (space.is_short_of_bytes or space.is_short_of_files) else []

    def space(self) -> DiskSpace | None:
        """See `Engine.disk_space`."""
        return self._disk.space()

    def has_room_for_images(self) -> bool:
        """Return whether images may be pulled, as far as can be seen."""
        space = self.space()
        return space is None or space.has_room_for_images

    def use(self, name: str, *, count_files: bool) -> DiskUse:
        """See `Engine.disk_use`."""
        inspected = self._client.call("GET", f"/containers/{quoted(name)}/json")
        layer = self._layer(inspected)
        use = self._use_of(inspected, layer, count_files) if layer else None
        return use or self._use_by_engine(name)

    def empty(self, name: str) -> bool:
        """Remove what an ended container has written, if this process can. Return whether that was done."""
        answer = self._client.exchange("GET", f"/containers/{quoted(name)}/json")
        if answer.failed or answer.data["State"].get("Running"):
            return False
        layer = self._layer(answer.data)
        return layer is not None and remove_tree(layer, self._client.intervals.long_call)

    def _use_of(self, inspected: Mapping[str, Any], layer: Path, count_files: bool) -> DiskUse | None:
        timeout = self._client.intervals.disk_measurement
        others = [path for path in map(self._disk.path, other_paths(inspected)) if path]
        under_quota = size_under_quota(layer, inspected)
        walked = tree_size(others if under_quota else [layer, *others], timeout)
        if walked is None:
            return None
        size = walked + (under_quota or _unnamed(inspected, layer))
        return DiskUse(size, tree_files([layer, *others], timeout) if count_files else None)

    def _use_by_engine(self, name: str) -> DiskUse:
        """Let the engine add up the sizes of the files in the layer: it does not know more, nor which of them are sparse."""
        timeout = self._client.intervals.disk_measurement
        inspected = self._client.call("GET", f"/containers/{quoted(name)}/json", params={"size": "1"}, timeout=timeout)
        size = inspected.get("SizeRw")
        if size == _NOT_MEASURED:
            raise Unmeasurable("the engine cannot measure the files of the container")
        if not isinstance(size, int) or size < 0:
            raise EngineUnavailable(ANSWER_UNREADABLE)
        return DiskUse(size)

    def _layer(self, inspected: Mapping[str, Any]) -> Path | None:
        """Return the directory of all that a container has written to its image's files; None if it cannot be read here."""
        described = (inspected.get("GraphDriver") or {}).get("Data") or {}
        path = described.get("UpperDir") or upper_of(inspected["State"].get("Pid") or 0)
        layer = self._disk.path(path) if path else None
        return layer if layer and layer.is_dir() else None


def _unnamed(inspected: Mapping[str, Any], layer: Path) -> int:
    pid = inspected["State"].get("Pid") or 0
    if not pid:
        return 0
    try:
        devices = {os.stat(layer).st_dev, os.stat(f"/proc/{pid}/root/").st_dev}
    except OSError:
        return 0  # it has ended
    return unnamed_size(pid, devices)
