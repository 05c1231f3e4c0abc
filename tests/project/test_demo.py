"""bin/demo shows every event and leaves nothing behind."""

import re
import signal
from base64 import b64encode
from contextlib import closing
from pathlib import Path

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
    with started("demo", tmp_path) as demo:
        printed = demo.communicate(timeout=120)[0]

    assert demo.returncode == 0, printed
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
    with started("demo", tmp_path) as demo:
        read_until(demo, "POST /v1/jobs")
        demo.send_signal(number)
        demo.communicate(timeout=STOP_SECONDS)

    assert demo.returncode == 128 + number
    assert not list(tmp_path.glob("demo-*"))
    assert nothing_runs(tmp_path)
    assert installations() <= before


@given(secret=st.binary(min_size=1, max_size=40), body=st.text(max_size=200), other=st.text(max_size=200))
def test_the_demo_detects_a_wrong_signature(secret: bytes, body: str, other: str) -> None:
    key = "whsec_" + b64encode(secret).decode()

    fault = peers.signature_fault(key, other.encode(), {"X-Signature-256": peers.body_signature(key, body.encode())})

    assert ("X-Signature-256" in fault) == (body != other)
