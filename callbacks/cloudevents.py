"""CloudEvents 1.0 over HTTP in structured mode (docs/usage.md, "Events")."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

CONTENT_TYPE: Final = "application/cloudevents+json"
MAX_BYTES: Final = 64 * 1024  # of a body
_SPEC_VERSION: Final = "1.0"
_DATA_TYPE: Final = "application/json"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# Not percent-encoded in headers (CloudEvents' HTTP binding, 3.1.3.2): visible ASCII except the quote and the percent sign.
_VISIBLE: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


@dataclass(frozen=True, slots=True)
class RawJson:
    """A JSON text to send unchanged: parsed by Python, its numbers would lose digits."""

    text: str


class EventTooLarge(ValueError):
    """The event has more than 64 KiB as encoded."""


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
        """Return all context attributes, by name."""
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
        """Return the event as compact JSON in UTF-8. Lone surrogates become U+FFFD. Members of `data` may be `RawJson`.

        Raise `EventTooLarge`, or ValueError if `data` contains what JSON cannot express (NaN, infinity).
        """
        text = _object({**self.attributes(), "data": RawJson(_object(data))})
        try:
            body = text.encode()
        except UnicodeEncodeError:
            body = _SURROGATE.sub("\ufffd", text).encode()
        if len(body) > MAX_BYTES:
            raise EventTooLarge(f"the {self.type} event has {len(body)} bytes; the maximum is {MAX_BYTES}")
        return body

    def headers(self) -> dict[str, str]:
        """Return Content-Type, and the context attributes as `Ce-*` headers."""
        return {"Content-Type": CONTENT_TYPE} | {
            f"Ce-{name.capitalize()}": quote(str(value), safe=_VISIBLE) for name, value in self.attributes().items()
        }


def timestamp(time: datetime) -> str:
    """Return a time as RFC 3339 in UTC, with microseconds."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _object(members: Mapping[str, Any]) -> str:
    return "{" + ",".join(f"{_json(name)}:{_json(value)}" for name, value in members.items()) + "}"


def _json(value: object) -> str:
    if isinstance(value, RawJson):
        return value.text
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
