"""The outcome of one attempt to deliver an event."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of an attempt: an answer, or the reason why there was none."""

    time: datetime  # when the attempt began
    latency_ms: int
    status: int | None = None  # of the answer; None: there was none, or only a part
    error: str = ""  # why there was no answer, or what is wrong with it
    answer: str = ""  # the beginning of its body
    retry_after: float = 0.0  # seconds that the destination asked for
    by_service: bool = False  # whether the service failed, or its proxy, which says nothing about the destination

    @property
    def accepted(self) -> bool:
        """True if the destination accepted the event."""
        return self.status is not None and 200 <= self.status < 300
