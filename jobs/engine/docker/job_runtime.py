"""The OCI runtime of job containers: JOB_RUNTIME, or the engine's default."""

import re
import threading
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Final

# These run a process in the namespaces of the host's kernel, as the engine has set them up. Others have a network stack of their
# own: gVisor takes the addresses of a network that it joins for itself, and the next container finds none.
_SHARING: Final = ("runc", "crun", "youki")

_UNKNOWN: Final = re.compile(r"unknown (?:or invalid )?runtime ", re.IGNORECASE)


class JobRuntime:
    """The runtime of one engine's job containers. Thread-safe."""

    def __init__(self, name: str) -> None:
        """Use the runtime with this name, or the engine's default if it is empty."""
        self.name = name
        self._lock = threading.Lock()
        self._refusal = ""
        self._program: str | None = None  # of the runtime; None until the engine was asked

    def learn(self, info: Mapping[str, Any]) -> None:
        """Look for the runtime in the answer to `GET /info`."""
        runtimes = info.get("Runtimes") or {}
        name = self.name or str(info.get("DefaultRuntime") or "")
        runtime = runtimes.get(name)
        with self._lock:
            self._program = PurePath(str((runtime or {}).get("path") or "")).name
            self._refusal = f"the engine has no runtime {name} (JOB_RUNTIME)" if self.name and runtime is None else ""

    @property
    def refusal(self) -> str:
        """Why no job can start with it, as far as the engine has said; empty if jobs can."""
        with self._lock:
            return self._refusal

    @property
    def shares_networks(self) -> bool:
        """Whether its containers may join the network of another one, and leave it as they found it."""
        with self._lock:
            return not self.name if self._program is None else self._program in _SHARING


def is_unknown(message: str) -> bool:
    """Return whether an engine has not created a container because it does not have the runtime."""
    return _UNKNOWN.match(message) is not None
