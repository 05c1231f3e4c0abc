"""Texts of the service cannot control the terminal, and times read well."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_site.client.texts import ago, in_words, seconds_between, shown, size_in_words

pytestmark = pytest.mark.stateless


@given(text=st.text())
def test_what_is_shown_has_nothing_that_a_terminal_interprets(text: str) -> None:
    assert shown(text).isprintable()


@given(text=st.text(st.characters(categories=["L", "N", "P"])))
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    assert shown(text) == text


def test_a_long_text_is_cut() -> None:
    assert len(shown("x" * 100_000)) < 3000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "less than 0.1 s"),
        (0.4, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations_are_in_words(seconds: float, text: str) -> None:
    assert in_words(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(17, "17 bytes"), (1536, "1.5 KiB"), (2**20, "1.0 MiB"), (2**50, "1024.0 TiB")])
def test_sizes_are_in_words(count: int, text: str) -> None:
    assert size_in_words(count) == text


@pytest.mark.parametrize("time", ["", "yesterday", 5, None, ["2026-01-31T12:00:00Z"], "0001-01-01T00:00:00+23:59"])
def test_a_time_that_is_none_is_left_out(time: object) -> None:
    assert seconds_between({"startedAt": time, "finishedAt": "2026-01-31T12:00:00Z"}, "startedAt", "finishedAt") is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "just now"), (0.9, "just now"), (3.4, "3 s ago"), (9.96, "10 s ago"), (185, "3 min 5 s ago")]
)
def test_a_moment_is_some_time_ago(seconds: float, text: str) -> None:
    assert ago(seconds) == text
