"""The size limit that an engine's storage driver sets on the layer of a container, where it can."""

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

OPTION: Final = "size"

# Which drivers take the option, and with which backing file system; whether they really do is seen when one is created:
# XFS has to be mounted with `pquota`, which the engine does not report.
_BACKING: Final = {"overlay2": ("xfs",), "btrfs": (), "zfs": ()}
_COUNTS_IMAGE: Final = ("btrfs",)  # its quota is about all that the layer refers to

# At the beginning, because the rest may be a job's words.
_REFUSAL: Final = re.compile(r"--storage-opt is |failed to (?:enable btrfs quota|limit qgroup|set quota limit)", re.IGNORECASE)

_MIN_SLACK: Final = 64 * 1024**2


class StorageLimit:
    """The limit of one engine's storage driver. Thread-safe.

    It is a quarter higher than the limit of a job: it protects the disk from a job that writes faster than a worker looks, and
    leaves the time to end the job for the right reason.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._driver = ""  # empty if it has no such limit
        self._is_refused = False

    def learn(self, info: Mapping[str, Any]) -> None:
        """Find out which driver the engine has, given the answer to `GET /info`."""
        driver, status = str(info.get("Driver")), dict(info.get("DriverStatus") or ())
        backing = _BACKING.get(driver)
        usable = backing is not None and "driver-type" not in status  # else containerd has the layers
        with self._lock:
            self._driver = driver if usable and (not backing or status.get("Backing Filesystem") in backing) else ""

    def options(self, limit: int | None, image_size: Callable[[], int]) -> dict[str, str]:
        """Return the storage options for a new container; none if the driver has no limit.

        `image_size` returns the size of its image in bytes, and may ask the engine.
        """
        with self._lock:
            driver = "" if self._is_refused else self._driver
        if limit is None or not driver:
            return {}
        size = limit + max(limit // 4, _MIN_SLACK) + (image_size() if driver in _COUNTS_IMAGE else 0)
        return {OPTION: str(size)}

    def refuses(self, message: str) -> bool:
        """Return whether the driver has refused the options of a container. They are not asked for again then."""
        if not _REFUSAL.match(message):
            return False
        with self._lock:
            self._is_refused = True
        return True
