"""What a run needs to know about the network sandboxes of its worker (docs/adr/0018-network-sandboxes.md)."""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A container whose network one job at a time may join."""

    name: str  # contains the owner: a worker that adopts the sandbox renames it
    token: str  # stays the same: the label of the sandbox and of the containers that have joined it
    owner: UUID  # a worker
    network: str
    made_at: float  # by `time.monotonic` of the owner
    contested: bool = False  # another worker may have adopted it at the same moment: the last name counts


class Sandboxes(Protocol):
    """The sandboxes of one worker. Thread-safe; no method calls the engine."""

    def take(self) -> Sandbox | None:
        """Return a sandbox for one job, or None if none is free and none is likely to be in a moment."""

    def give_back(self, sandbox: Sandbox) -> None:
        """Stop using a sandbox. A container that has joined it may still be there."""
