"""Signs events (docs/callbacks.md): with `X-Signature-256`, and with the headers of Standard Webhooks.

The `standardwebhooks` package signs text with one key; these are bytes and may have two.
"""

import binascii
import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Final

_BASE64_PREFIX: Final = "whsec_"


def headers(keys: Sequence[str], event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return headers that sign exactly `body`.

    Args:
        keys: One key, or the new key and the one that it replaces.
        event_id: The event's id, the same for every attempt.
        timestamp: The time of this attempt, in seconds since 1970.
        body: The bytes that are sent.

    `webhook-signature` contains a signature with each key. `X-Signature-256` has room for one signature, with the last key:
    receivers that compare the whole header keep working when a new key is added.
    """
    signed = b".".join((event_id.encode(), str(timestamp).encode(), body))
    return {
        "X-Signature-256": "sha256=" + hmac.new(keys[-1].encode(), body, hashlib.sha256).hexdigest(),
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(
            "v1," + b64encode(hmac.digest(_webhook_secret(key), signed, "sha256")).decode() for key in keys
        ),
    }


def _webhook_secret(key: str) -> bytes:
    """Return the bytes that `whsec_<base64>` encodes, padded or not, and the UTF-8 bytes of any other key."""
    encoded = key.removeprefix(_BASE64_PREFIX)
    if encoded and encoded != key:
        try:
            return b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except (binascii.Error, ValueError):
            pass
    return key.encode()
