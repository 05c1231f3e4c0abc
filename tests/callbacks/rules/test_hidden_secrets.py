"""What a destination answers is stored and shown, but not the secrets of the request that it repeats."""

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callbacks.rules.hidden_secrets import HIDDEN, hide_secrets

pytestmark = pytest.mark.stateless

URL = "https://user:pass%2Fword1@h.example/hook/path?token=s3cret%2Ftoken&team=video-team"
HEADERS = {"Authorization": "Bearer abcdef/0123456789=", "X-Short": "7"}
KEYS = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "an older key")


def hide(answer: str) -> str:
    return hide_secrets(answer, URL, HEADERS, KEYS)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("thank you", "thank you"),
        ("got Bearer abcdef/0123456789=!", "got ***!"),
        ("invalid token abcdef/0123456789", "invalid token ***"),
        (json.dumps({"authorization": "Bearer abcdef/0123456789="}), '{"authorization": "***"}'),
        (r'{"authorization":"Bearer abcdef\/0123456789="}', '{"authorization":"***"}'),
        ("POST /hook/path?token=s3cret%2Ftoken&team=video-team HTTP/1.1", "POST /hook/path?*** HTTP/1.1"),
        ("token is s3cret/token", "token is ***"),
        ("Basic " + b64encode(b"user:pass/word1").decode(), "Basic ***"),
        ("user with pass/word1", "user with ***"),
        ("signed with an older key or whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "signed with *** or ***"),
        ("7 of 7", "7 of 7"),
        ("cut off: Bearer abcdef/01234", "cut off: ***"),
        ("cut off: Bear", "cut off: Bear"),
    ],
)
def test_secrets_are_hidden(answer: str, expected: str) -> None:
    assert hide(answer) == expected


TOKENS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_/+.", min_size=8, max_size=40)


@given(TOKENS, TOKENS, st.text(max_size=40), st.text(max_size=40), st.sampled_from([str, json.dumps]))
def test_no_value_of_a_header_or_query_is_left(token: str, sent: str, before: str, after: str, write: Any) -> None:
    answer = f"{before}{write(token)} {write(sent)}{after}"
    shown = hide_secrets(answer, f"http://h.example/?sig={sent}", {"X-Token": f"Bearer {token}"}, ())
    assert token not in shown
    assert sent not in shown


@given(st.text())
def test_an_answer_without_secrets_is_shown_as_it_is(answer: str) -> None:
    assert hide_secrets(answer, "http://h.example/", {}, ()) == answer
    assert HIDDEN in hide_secrets(answer + "the key of it", "http://h.example/", {}, ["the key of it"])
