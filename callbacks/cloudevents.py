"""CloudEvents 1.0 over HTTP in structured mode (docs/usage.md, "Events")."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

CONTENT_TYPE: Final = "application/cloudevents+json"
MOST_BYTES: Final = 64 * 1024
_SPEC_VERSION: Final = "1.0"
_DATA_TYPE: Final = "application/json"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# CloudEvents' HTTP binding, 3.1.3.2: what may stand in a header as it is: visible ASCII but the quote and the percent sign.
_VISIBLE: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


@dataclass(frozen=True, slots=True)
class RawJson:
    """A JSON text that is to be sent as it is: a value of Python's would lose digits of its numbers."""

    text: str


class EventTooLarge(ValueError):
    """As encoded the event would not fit into 64 KiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The context attributes of one event."""

    id: str
    source: str
    type: str
    subject: str
    time: str  # see `timestamp`
    jobsequence: int

    def attributes(self) -> dict[str, str | int]:
        return {
            "specversion": _SPEC_VERSION,
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": self.time,
            "datacontenttype": _DATA_TYPE,
            "jobsequence": self.jobsequence,
        }

    def body(self, data: Mapping[str, Any]) -> bytes:
        """Compact JSON in UTF-8; a lone surrogate becomes U+FFFD. Members of `data` may be `RawJson`.

        Raises `EventTooLarge`, or ValueError where `data` holds what JSON cannot say (NaN, infinity).
        """
        text = _object({**self.attributes(), "data": RawJson(_object(data))})
        body = _SURROGATE.sub("\ufffd", text).encode()
        if len(body) > MOST_BYTES:
            raise EventTooLarge(f"the {self.type} event has {len(body)} bytes; at most {MOST_BYTES} can be sent")
        return body

    def headers(self) -> dict[str, str]:
        """Content-Type, and the same attributes again as `Ce-*`."""
        return {"Content-Type": CONTENT_TYPE} | {
            f"Ce-{name.capitalize()}": quote(str(value), safe=_VISIBLE) for name, value in self.attributes().items()
        }


def timestamp(time: datetime) -> str:
    """RFC 3339 in UTC, with microseconds."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _object(members: Mapping[str, Any]) -> str:
    return "{" + ",".join(f"{_json(name)}:{_json(value)}" for name, value in members.items()) + "}"


def _json(value: object) -> str:
    if isinstance(value, RawJson):
        return value.text
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
