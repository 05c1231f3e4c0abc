"""One attempt to deliver an event over HTTP."""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from callbacks.rules.outcome import Outcome
from callbacks.rules.retry_schedule import retry_after
from orchestrator_site.base.egress import http_client
from orchestrator_site.base.intervals import DeliveryIntervals

_MAX_READ_BYTES: Final = 64 * 1024
_MAX_KEPT_BYTES: Final = 2 * 1024
_MAX_ERROR_CHARACTERS: Final = 512
_USER_AGENT: Final = "Orchestrator/1 (CloudEvents)"


def send(url: str, headers: Mapping[str, str], body: bytes, intervals: DeliveryIntervals = DeliveryIntervals()) -> Outcome:
    """POST an event once and return the outcome. Never raise for what the destination, its name or the network do."""
    began, start = datetime.now(UTC), time.monotonic()

    def latency() -> int:
        return round((time.monotonic() - start) * 1000)

    try:
        with http_client.open(
            "POST",
            url,
            headers={"User-Agent": _USER_AGENT, **headers},
            body=body,
            connect_timeout=intervals.connect,
            read_timeout=intervals.answer,
            total_timeout=intervals.answer,
        ) as response:
            status, asked, date = response.status, response.getheader("Retry-After"), response.getheader("Date")
            answer = _beginning(http_client.chunks(response))
    except http_client.EgressError as error:
        by_service = isinstance(error, http_client.ServiceFailed)
        return Outcome(time=began, latency_ms=latency(), error=str(error)[:_MAX_ERROR_CHARACTERS], by_service=by_service)
    return Outcome(
        time=began,
        latency_ms=latency(),
        status=status,
        error="" if 200 <= status < 300 else f"answered {status}",
        answer=answer,
        retry_after=retry_after(status, asked, datetime.now(UTC), intervals, date),
    )


def _beginning(chunks: Iterator[bytes]) -> str:
    """Return the first 2 KiB of an answer as text that any database accepts.

    Read on to the end of an answer of usual size, so that its connection can be used again, but not of an endless one.
    """
    read, kept = 0, b""
    for chunk in chunks:
        kept += chunk[: _MAX_KEPT_BYTES - len(kept)]
        read += len(chunk)
        if read >= _MAX_READ_BYTES:
            break
    text = kept.decode("utf-8", "replace").replace("\0", "\ufffd")
    return text.encode()[:_MAX_KEPT_BYTES].decode("utf-8", "ignore")
