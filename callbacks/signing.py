"""How a consumer knows that an event is ours (docs/usage.md, "Signatures"): our header, and Standard Webhooks' beside it."""

import binascii
import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Final

_ENCODED: Final = "whsec_"  # before the base64 of a key


def headers(keys: Sequence[str], event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return headers that sign exactly `body`.

    Args:
        keys: One key, or the new key and the one that it replaces.
        event_id: The same for every attempt.
        timestamp: Of this attempt, in seconds since 1970.
        body: The bytes that are sent.

    `webhook-signature` holds a signature by each key. `X-Signature-256` can hold one only, by the last key: receivers that
    compare the whole header still work when a second key is added.
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
    """What `whsec_<base64>` encodes, padded or not; any other key's UTF-8 bytes."""
    encoded = key.removeprefix(_ENCODED)
    if encoded and encoded != key:
        try:
            return b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except (binascii.Error, ValueError):
            pass
    return key.encode()
