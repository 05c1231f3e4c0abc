"""How often something may be done: in one process, in Redis, and by the requests that are throttled."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client, RequestFactory
from dramatiq.errors import ConnectionClosed
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_site.base import broker
from orchestrator_site.base.access import throttles
from orchestrator_site.base.access.throttles import Allowance, ProcessThrottle
from tests.helpers.api_calls import configured, expect_error, post_body
from tests.helpers.keys import bearer, make_key

ALLOWANCE = Allowance("test", 3, 1000.0)
redis_only = pytest.mark.skipif(settings.CONFIGURATION.embedded, reason="needs Redis")


@given(
    burst=st.integers(1, 5),
    interval=st.integers(1, 10),
    pauses=st.lists(st.integers(0, 30), min_size=1, max_size=40),
)
def test_no_time_has_more_than_the_burst_and_one_for_each_interval(burst: int, interval: int, pauses: list[int]) -> None:
    # Given someone who tries at any times
    now, taken = 0.0, []
    throttle = ProcessThrottle(lambda: now)
    for pause in pauses:
        now += pause
        wait = throttle.spend([("x", Allowance("x", burst, interval))])
        if wait:
            # I expect to succeed after the time that was said, and not before
            said = now + wait
            now = said - 0.01
            assert throttle.spend([("x", Allowance("x", burst, interval))]) > 0
            now = said
            assert throttle.spend([("x", Allowance("x", burst, interval))]) == 0
        taken.append(now)
    for start, first in enumerate(taken):
        for end in range(start, len(taken)):
            assert end - start + 1 <= burst + (taken[end] - first) / interval + 1e-6


def test_it_takes_from_all_allowances_or_from_none() -> None:
    throttle = ProcessThrottle(lambda: 0.0)
    one, two = ("a", Allowance("a", 1, 5)), ("b", Allowance("b", 2, 5))
    assert throttle.spend([one, two]) == 0
    assert throttle.spend([one, two]) == 5
    assert throttle.spend([two]) == 0
    assert throttle.spend([two]) == 5


def test_a_process_keeps_a_limited_number_of_allowances() -> None:
    throttle = ProcessThrottle(lambda: 0.0, max_kept=10)
    for number in range(100):
        throttle.spend([(str(number), ALLOWANCE)])
    assert len(throttle._whole_at) == 10


@pytest.fixture
def unique() -> str:
    return f"test {time.time()}"


@redis_only
def test_all_processes_share_an_allowance_that_expires_by_itself(unique: str) -> None:
    assert [throttles.spend((ALLOWANCE, unique)) for _ in range(3)] == [0, 0, 0]
    wait = throttles.spend((ALLOWANCE, unique))
    assert 900 < wait <= 1000
    assert not throttles.of_this_process._whole_at
    client: Any = broker._redis_broker().client
    [key] = [key for key in client.scan_iter("orchestrator.throttle.test.*") if 0 < client.pttl(key) <= 3_000_000]
    assert unique not in str(key)
    client.delete(key)


@redis_only
def test_a_process_counts_by_itself_while_redis_does_not_answer(unique: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> bytes:
        raise ConnectionClosed(OSError("away"))

    monkeypatch.setattr(broker._redis_broker(), "evaluate", fail)
    monkeypatch.setattr(broker, "_scripts", broker._Hints())
    assert [throttles.spend((ALLOWANCE, unique)) > 0 for _ in range(4)] == [False, False, False, True]


@pytest.mark.parametrize(
    ("url", "address", "forwarded", "expected"),
    [
        ("http://h", "192.0.2.1", "203.0.113.9", "192.0.2.1"),
        ("https://h", "192.0.2.1", "203.0.113.9", "203.0.113.9"),
        ("https://h", "192.0.2.1", "10.0.0.1, 203.0.113.9", "203.0.113.9"),
        ("https://h", "192.0.2.1", None, "192.0.2.1"),
        ("http://h", "2001:db8:1:2:3:4:5:6", None, "2001:db8:1:2::"),
        ("http://h", "::ffff:192.0.2.1", None, "192.0.2.1"),
        ("https://h", "192.0.2.1", "10.0.0.1, 203.0.113.9:50123", "203.0.113.9"),
        ("https://h", "192.0.2.1", "[2001:db8:1:2:3:4:5:6]:50123", "2001:db8:1:2::"),
        ("https://h", "192.0.2.1", "x" * 100, "x" * 64),
        ("http://h", "", None, ""),
    ],
)
def test_a_client_is_known_by_its_address(
    rf: RequestFactory, url: str, address: str, forwarded: str | None, expected: str
) -> None:
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    with configured(public_url=url):
        assert throttles.client_of(rf.get("/", headers=headers, REMOTE_ADDR=address)) == expected


@pytest.fixture
def required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Keys are required, and counted in this process with small allowances."""
    monkeypatch.setattr(broker, "evaluate", lambda *_: None)
    (tmp_path / "keys").write_text("from-the-file\n")
    with configured(api_auth_required=True, api_key_file=tmp_path / "keys"):
        yield


def answers(number: int, call: Callable[[], Any]) -> list[Any]:
    return [call() for _ in range(number)]


@pytest.mark.django_db
def test_wrong_keys_are_throttled_by_address_and_never_keep_out_a_right_one(
    client: Client, required: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttles, "WRONG_KEYS", ALLOWANCE)
    made = make_key("default")
    wrong = bearer("wrong")

    # When more requests with a wrong key come than are allowed, I expect 429 that says when to try again
    found = answers(4, lambda: client.get("/v1/jobs", headers=wrong))
    assert [answer.status_code for answer in found] == [401, 401, 401, 429]
    expect_error(found[-1], 429)
    assert 900 < int(found[-1]["Retry-After"]) <= 1000
    expect_error(client.get("/v1/jobs", headers=bearer(made[:-1] + "?")), 429)

    # and other addresses, right keys and requests without a key to be answered as before
    assert client.get("/v1/jobs", headers=wrong, REMOTE_ADDR="192.0.2.7").status_code == 401
    for right in (made, "from-the-file"):
        assert client.get("/v1/jobs", headers=bearer(right)).status_code == 200
    assert client.get("/v1/jobs").status_code == 401


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["JOBS_OF_KEY", "JOBS_OF_ADDRESS"])
def test_jobs_posted_are_throttled_by_key_and_address(
    client: Client, required: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(throttles, name, ALLOWANCE)
    keys = [make_key("default"), "from-the-file"]

    def post(key: str, address: str = "192.0.2.1") -> Any:
        return post_body(client, '{"image": "alpine"}', headers=bearer(key), REMOTE_ADDR=address)

    found = answers(4, lambda: post(keys[0]))
    assert [answer.status_code for answer in found] == [202, 202, 202, 429]
    assert 900 < int(found[-1]["Retry-After"]) <= 1000
    by_key = name == "JOBS_OF_KEY"
    assert post(keys[1]).status_code == (202 if by_key else 429)
    assert post(keys[0], "192.0.2.2").status_code == (429 if by_key else 202)
    assert client.get("/v1/jobs", headers=bearer(keys[0]), REMOTE_ADDR="192.0.2.1").status_code == 200
