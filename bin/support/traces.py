"""What dockerd leaves on a machine outside the directories it is given: noted before it starts, taken away after.

Only what was not there before is removed, and what all engines of a machine share only where no other one runs.
"""

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import firewall

# Inner paths first, so that a directory is empty when its turn comes.
KEY = "/etc/docker/key.json"
DIRECTORIES = (
    "/etc/docker",
    "/run/containerd/s",
    "/run/containerd",
    "/run/docker/plugins",
    "/run/docker",
    "/opt/containerd/bin",
    "/opt/containerd/lib",
    "/opt/containerd",
)
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


@dataclass(frozen=True, slots=True)
class Traces:
    """The machine as it was before dockerd started."""

    absent: list[str]
    forwarding: str
    policies: dict[str, str]

    @classmethod
    def look(cls) -> Self:
        paths = [KEY, *DIRECTORIES, *control_groups()]
        return cls(
            absent=[path for path in paths if not Path(path).exists()],
            forwarding=FORWARDING.read_text().strip(),
            policies=firewall.forward_policies(),
        )

    def remove(self, own_settings: str) -> None:
        """Take them away, once the dockerd that was started with this configuration file has ended."""
        if not firewall.other_daemon_runs(own_settings):
            firewall.remove_docker(self.policies)
            if self.policies and self.forwarding == "0":
                FORWARDING.write_text("0\n")
        if KEY in self.absent:
            Path(KEY).unlink(missing_ok=True)
        for path in self.absent:
            with suppress(OSError):  # gone already, or in use by somebody else meanwhile
                Path(path).rmdir()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(**value)


def control_groups() -> list[str]:
    """Docker's own group in each hierarchy."""
    root = Path("/sys/fs/cgroup")
    hierarchies = [path.parent for path in (root / "cgroup.procs", *sorted(root.glob("*/cgroup.procs"))) if path.exists()]
    return [str(hierarchy / "docker") for hierarchy in hierarchies]
