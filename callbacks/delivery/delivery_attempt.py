"""One attempt to deliver: bytes out, and what came of it as a plain value."""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from callbacks.rules.outcome import Outcome
from callbacks.rules.retry_schedule import retry_after
from orchestrator_site.base.egress import http_client

CONNECT_SECONDS = 5.0
WHOLE_SECONDS = 15.0
_READ_BYTES: Final = 64 * 1024
_KEPT_BYTES: Final = 2 * 1024
_MOST_ERROR_CHARACTERS: Final = 512
_USER_AGENT: Final = "Orchestrator/1 (CloudEvents)"


def send(url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
    """POST it once. Never raises for what the destination, its name or the network do."""
    began, start = datetime.now(UTC), time.monotonic()

    def latency() -> int:
        return round((time.monotonic() - start) * 1000)

    try:
        with http_client.open(
            "POST",
            url,
            headers={"User-Agent": _USER_AGENT, **headers},
            body=body,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=WHOLE_SECONDS,
            total_timeout=WHOLE_SECONDS,
        ) as response:
            status, asked, date = response.status_code, response.headers.get("Retry-After"), response.headers.get("Date")
            answer = _beginning(http_client.chunks(response))
    except http_client.EgressError as error:
        return Outcome(time=began, latency_ms=latency(), error=str(error)[:_MOST_ERROR_CHARACTERS])
    return Outcome(
        time=began,
        latency_ms=latency(),
        status=status,
        error="" if 200 <= status < 300 else f"answered {status}",
        answer=answer,
        retry_after=retry_after(status, asked, datetime.now(UTC), date),
    )


def _beginning(chunks: Iterator[bytes]) -> str:
    """What is kept of an answer, as text that any database takes. A usual answer is read to its end, an endless one is not."""
    read, kept = 0, b""
    for chunk in chunks:
        kept += chunk[: _KEPT_BYTES - len(kept)]
        read += len(chunk)
        if read >= _READ_BYTES:
            break
    text = kept.decode("utf-8", "replace").replace("\0", "\ufffd")
    return text.encode()[:_KEPT_BYTES].decode("utf-8", "ignore")
