"""How many connections the API server sees, and what each costs."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.engine.kubernetes import KubernetesEngine
from jobs.interrupt import Interrupt
from tests.helpers.certificates import write_certificates
from tests.jobs.engine.kubernetes.scripted_api import ENDED, ScriptedApi, engine_of, job, pod

pytestmark = pytest.mark.stateless

WATCHES = 2
LOG = b"2026-01-01T00:00:02.000000000Z first\n2026-01-01T00:00:03.000000000Z second\n"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ScriptedApi]:
    """An API server whose certificate cannot be verified, and one container that has ended."""
    write_certificates(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    api = ScriptedApi(tls)
    api.objects = {"jobs": [job("one", 5)], "pods": [pod("one", 6, ENDED)]}
    api.answers["GET", "/log"] = (200, LOG)
    yield api
    api.close()


def read_log(engine: KubernetesEngine) -> list[bytes]:
    with engine.logs("one", skip=0, follow=False, interrupt=Interrupt()) as log:
        return [data for frames in log if frames is not None for data in frames.data]


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_requests_one_after_the_other_share_a_connection(api: ScriptedApi, tmp_path: Path) -> None:
    with engine_of(api, tmp_path) as engine:
        for _ in range(3):
            assert read_log(engine) == [b"first\n", b"second\n"]
            engine.list({})

        assert api.connections <= WATCHES + 1


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_a_connection_that_verifies_nothing_reads_no_certificates(
    api: ScriptedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("certificates of authorities were read")

    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", refuse)
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", refuse)

    with engine_of(api, tmp_path) as engine:
        assert engine.inspect("one").exit_code == 3
