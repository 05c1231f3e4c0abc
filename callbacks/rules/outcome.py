"""What came of one attempt to deliver, as a plain value."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`status` is None where there was no (whole) answer; then `error` says why. It says what is wrong with an answer, too."""

    time: datetime  # when the attempt began
    latency_ms: int
    status: int | None = None
    error: str = ""
    answer: str = ""  # how its body begins
    retry_after: float = 0.0  # seconds that the destination asked for

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300
