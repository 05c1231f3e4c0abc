"""How a consumer knows that an event is ours (docs/usage.md, "Signatures"): our header, and Standard Webhooks' beside it."""

import binascii
import hashlib
import hmac
from base64 import b64decode, b64encode
from typing import Final

_ENCODED: Final = "whsec_"  # before the base64 of a key


def headers(key: str, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Headers that sign exactly `body`. `timestamp` is of this attempt, in seconds since 1970."""
    signed = b".".join((event_id.encode(), str(timestamp).encode(), body))
    return {
        "X-Signature-256": "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest(),
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": "v1," + b64encode(hmac.digest(_webhook_secret(key), signed, "sha256")).decode(),
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
