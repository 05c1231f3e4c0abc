"""What a run needs to know about how much its job has written to the engine's disk."""

from typing import Protocol


class DiskLimit(Protocol):
    """The limit that all jobs of a worker have. Thread-safe."""

    def excess_of_ended(self, container: str) -> str:
        """Return in a sentence by how much a container has exceeded the limit, whose process has ended.

        Return an empty string if it has not, or if that is unknown. May call the engine.
        """
