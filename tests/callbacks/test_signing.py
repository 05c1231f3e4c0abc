"""Signatures, judged by the `standardwebhooks` package and an HMAC of the test's own."""

import hashlib
import hmac
import time
from base64 import b64encode

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from callbacks import signing

pytestmark = pytest.mark.stateless

BODIES = st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
KEYS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=60)


@given(KEYS, BODIES)
def test_a_key_signs_with_its_bytes(key: str, body: bytes) -> None:
    assume(not key.startswith("whsec_"))
    headers = signing.headers([key], "id", int(time.time()), body)
    assert headers["X-Signature-256"] == "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
    Webhook(key.encode()).verify(body, headers, json_parse=False)


@given(st.binary(min_size=1, max_size=64), BODIES, st.booleans())
def test_a_whsec_key_is_decoded_for_webhook_signature_only(secret: bytes, body: bytes, padded: bool) -> None:
    # Given a key as the Standard Webhooks libraries write it
    key = "whsec_" + (b64encode(secret).decode() if padded else b64encode(secret).decode().rstrip("="))

    # When it signs
    headers = signing.headers([key], "id", int(time.time()), body)

    # I expect their library to verify it, and our own header to use the key as given
    Webhook(key).verify(body, headers, json_parse=False)
    assert headers["X-Signature-256"] == "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


@given(KEYS, KEYS, BODIES)
def test_each_of_two_keys_signs(new: str, old: str, body: bytes) -> None:
    assume(not new.startswith("whsec_") and not old.startswith("whsec_"))
    headers = signing.headers([new, old], "id", int(time.time()), body)
    for key in (new, old):
        Webhook(key.encode()).verify(body, headers, json_parse=False)
    assert headers["X-Signature-256"] == "sha256=" + hmac.new(old.encode(), body, hashlib.sha256).hexdigest()


@pytest.mark.parametrize("key", ["whsec_", "whsec_not base64!", "whsec_x"])
def test_a_whsec_key_that_is_not_base64_is_used_as_it_is(key: str) -> None:
    headers = signing.headers([key], "id", int(time.time()), b"{}")
    Webhook(key.encode()).verify(b"{}", headers)


@given(BODIES, st.integers(0, 10**6))
def test_a_changed_body_does_not_verify(body: bytes, position: int) -> None:
    assume(body)
    headers = signing.headers(["key"], "id", int(time.time()), body)
    index = position % len(body)
    forged = body[:index] + bytes([(body[index] + 1) % 128]) + body[index + 1 :]
    assume(forged != body)
    with pytest.raises((WebhookVerificationError, UnicodeDecodeError)):
        Webhook(b"key").verify(forged, headers, json_parse=False)
