"""Record what exists on the machine before dockerd starts, and remove what it leaves outside its own directories.

Only what did not exist before is removed, and what all engines of a machine share only if no other engine runs.
"""

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from own_engine import firewall

# Inner paths first, so that each directory is empty when it is removed.
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
    """The state of the machine before dockerd started."""

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
        """Restore that state, after the dockerd that was started with this configuration file has ended."""
        if not firewall.other_daemon_runs(own_settings):
            firewall.remove_docker(self.policies)
            if self.policies and self.forwarding == "0":
                FORWARDING.write_text("0\n")
        if KEY in self.absent:
            Path(KEY).unlink(missing_ok=True)
        for path in self.absent:
            with suppress(OSError):  # already removed, or in use by another program
                Path(path).rmdir()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(**value)


def control_groups() -> list[str]:
    """Return the path of Docker's control group in each hierarchy."""
    root = Path("/sys/fs/cgroup")
    hierarchies = [path.parent for path in (root / "cgroup.procs", *sorted(root.glob("*/cgroup.procs"))) if path.exists()]
    return [str(hierarchy / "docker") for hierarchy in hierarchies]
