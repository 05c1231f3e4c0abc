"""The volumes that an engine makes because an image declares them. It removes them with their container, or tries to.

If it cannot remove one (see `tree_removal`), it only writes that to its own log, and the volume would stay for ever.
"""

import copy
import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Final

from jobs.engine.docker.disk.disk_of_engine import DiskOfEngine
from jobs.engine.docker.disk.tree_removal import remove_tree
from jobs.engine.docker.transport import EngineClient, quoted

logger = logging.getLogger(__name__)

_MAX_CONTAINERS: Final = 4096  # that are remembered


class ImageVolumes:
    """The volumes of one engine's containers, as far as the containers were looked at. Thread-safe."""

    def __init__(self, client: EngineClient, disk: DiskOfEngine) -> None:
        self._client = client
        self._disk = disk
        self._lock = threading.Lock()
        self._volumes: dict[str, dict[str, str]] = {}  # by the container's name: where the files of each are

    def using(self, client: EngineClient) -> "ImageVolumes":
        """Return the same volumes, requested through another client."""
        volumes = copy.copy(self)
        volumes._client = client
        return volumes

    def learn(self, name: str, mounts: Iterable[Mapping[str, Any]] | None) -> None:
        """Remember the volumes of a container, given the `Mounts` in the engine's description of it."""
        found = {mount["Name"]: mount["Source"] for mount in mounts or () if mount["Type"] == "volume" and mount["RW"]}
        if found:
            with self._lock:
                if len(self._volumes) >= _MAX_CONTAINERS:
                    self._volumes.clear()
                self._volumes[name] = found

    def remove(self, name: str) -> None:
        """Remove what the engine has left of the volumes of a container that it has removed."""
        with self._lock:
            volumes = self._volumes.pop(name, {})
        for volume, source in volumes.items():
            if not self._remove(volume) and (path := self._disk.path(source)) and remove_tree(path, self._timeout):
                self._remove(volume)

    def _remove(self, volume: str) -> bool:
        """Remove a volume, and return whether there is none of that name any more."""
        params = {"force": "1"}  # for one that does not exist
        answer = self._client.exchange("DELETE", f"/volumes/{quoted(volume)}", params=params, timeout=self._timeout)
        if answer.failed:
            logger.warning("the engine cannot remove a volume: %s", answer.message, extra={"volume": volume})
        return not answer.failed

    @property
    def _timeout(self) -> float:
        return self._client.intervals.long_call
