"""bin/demo shows every event and leaves nothing behind."""

import re
import signal
from base64 import b64encode
from contextlib import closing
from pathlib import Path

import demo
import docker
import leftovers
import peers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.project.commands import STOP_SECONDS, nothing_runs, read_until, started


def installations() -> set[str]:
    """Return the networks of all installations on the engine."""
    with closing(docker.from_env()) as client:
        return {network.id or "" for network in client.networks.list(filters={"label": leftovers.INSTANCE_LABEL})}


@pytest.mark.stateless
@pytest.mark.engine
@pytest.mark.any_engine
@pytest.mark.alone
def test_the_demo_shows_every_event_and_leaves_nothing(tmp_path: Path) -> None:
    before = installations()
    with started("demo", tmp_path) as process:
        printed = process.communicate(timeout=120)[0]

    assert process.returncode == 0, printed
    for event in ("input", "start", "log", "exit", "output", "complete"):
        assert re.search(rf"^ +\d+  {event} +signed", printed, re.MULTILINE), printed
    for address in ("bin/serve", "bin/run ", "/v1/docs", "/admin/"):
        assert address in printed.partition("Where to look next:")[2]
    assert not list(tmp_path.glob("demo-*"))
    assert nothing_runs(tmp_path)
    assert installations() <= before


@pytest.mark.stateless
@pytest.mark.engine
@pytest.mark.any_engine
@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    before = installations()
    with started("demo", tmp_path) as process:
        read_until(process, "POST /v1/jobs")
        process.send_signal(number)
        process.communicate(timeout=STOP_SECONDS)

    assert process.returncode == 128 + number
    assert not list(tmp_path.glob("demo-*"))
    assert nothing_runs(tmp_path)
    assert installations() <= before


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"PORT": "8123"}, "http://127.0.0.1:8123"),
        ({"PORT": "8123", "PUBLIC_URL": "https://jobs.example.com/"}, "https://jobs.example.com"),
    ],
)
def test_the_demo_ends_with_the_addresses_of_serve(environment: dict[str, str], url: str) -> None:
    printed = demo.where_to_look_next(environment)
    assert re.findall(r"http\S+", printed) == [f"{url}/v1/docs", f"{url}/admin/"]


@given(secret=st.binary(min_size=1, max_size=40), body=st.text(max_size=200), other=st.text(max_size=200))
def test_the_demo_detects_a_wrong_signature(secret: bytes, body: str, other: str) -> None:
    key = "whsec_" + b64encode(secret).decode()

    fault = peers.signature_fault(key, other.encode(), {"X-Signature-256": peers.body_signature(key, body.encode())})

    assert ("X-Signature-256" in fault) == (body != other)
