"""Generated jobs ask no other host for anything."""

import pytest

from tests.fuzzing.inputs.local_jobs import keep_here

pytestmark = pytest.mark.stateless


def test_what_a_service_would_ask_for_is_replaced() -> None:
    job = {
        "image": "example.com/a",
        "inputs": [{"type": "download", "url": "https://example.com/"}],
        "callback": {"url": "http://a.com"},
    }
    keep_here(job)
    here = "http://127.0.0.1:9/"
    assert job == {"image": "none.invalid/none", "inputs": [{"type": "download", "url": here}], "callback": {"url": here}}


def test_what_is_invalid_stays() -> None:
    job = {"image": "A b", "callback": {"url": "ftp://a"}, "outputs": [{"url": 1}, "url"], "meta": {"a": "http://a.com"}}
    before = repr(job)
    keep_here(job)
    assert repr(job) == before
