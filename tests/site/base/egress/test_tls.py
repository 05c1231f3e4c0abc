"""Certificates and names of outgoing requests over TLS."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings

from orchestrator_site.base.egress import connection_pool, http_client
from tests.helpers.certificates import certificate, tls_server
from tests.helpers.receiver import Answer, Receiver
from tests.site.base.egress.sending import get

pytestmark = pytest.mark.stateless


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: Any, fresh_pool: None) -> Iterator[Receiver]:
    """A server with a certificate for hook.test that is trusted like a public one."""
    path = certificate(tmp_path, "hook.test")
    names["hook.test"] = names["other.test"] = ["127.0.0.1"]
    monkeypatch.setattr(connection_pool.certifi, "where", lambda: str(path))
    with Receiver(tls=tls_server(path)) as receiver:
        yield receiver


def test_the_certificate_must_match_the_host_of_the_url(secure: Receiver) -> None:
    # Given a server whose certificate is for hook.test
    # When it is requested by that name, I expect an answer
    assert get(f"https://hook.test:{secure.port}/") == (200, b"")
    assert get(f"https://hook.test:{secure.port}/") == (200, b"")
    assert len({received.peer for received in secure.requests}) == 1

    # When it is requested by another name or its address, I expect a failure
    for host in ("other.test", "127.0.0.1"):
        with pytest.raises(http_client.EgressFailed, match="certificate verify failed"):
            get(f"https://{host}:{secure.port}/")


def test_what_a_server_sends_after_an_answer_is_not_the_next_answer(secure: Receiver) -> None:
    # Given an answer without a body, and more in the same TLS record than is read at once
    secure.will(Answer(204, headers={"X-A": "b\r\n\r\n" + "x" * 12_000}))
    assert get(f"https://hook.test:{secure.port}/") == (204, b"")

    # When the next request is sent, I expect its own answer, on another connection
    assert get(f"https://hook.test:{secure.port}/") == (200, b"")
    assert len({received.peer for received in secure.requests}) == 2


def test_a_private_authority_is_trusted_next_to_public_ones(tmp_path: Path, settings: Any, names: Any, secure: Receiver) -> None:
    # Given a server with a certificate of a public authority, and one with that of a private authority
    authority = certificate(tmp_path, "authority.test")
    names["inside.test"] = ["127.0.0.1"]
    with Receiver(tls=tls_server(certificate(tmp_path, "inside.test", authority))) as inside:
        # When CA_BUNDLE is not set, I expect the private one to be refused
        with pytest.raises(http_client.EgressFailed, match="certificate verify failed"):
            get(f"https://inside.test:{inside.port}/")
        assert inside.requests == []

        # When it names the private authority, I expect an answer from both
        settings.CONFIGURATION = replace(django_settings.CONFIGURATION, ca_bundle=authority)
        http_client._pool.cache_clear()
        assert get(f"https://inside.test:{inside.port}/") == (200, b"")
        assert get(f"https://hook.test:{secure.port}/") == (200, b"")


def test_a_missing_bundle_is_a_failure(tmp_path: Path, settings: Any, receiver: Receiver, fresh_pool: None) -> None:
    settings.CONFIGURATION = replace(django_settings.CONFIGURATION, ca_bundle=tmp_path / "gone.pem")
    with pytest.raises(http_client.EgressFailed, match="CA_BUNDLE cannot be read: No such file"):
        get(receiver.url)


def test_the_total_timeout_applies_to_tls(secure: Receiver) -> None:
    secure.will(Answer(fault="drip"))
    with pytest.raises(http_client.EgressFailed) as failure:
        get(f"https://hook.test:{secure.port}/", total_timeout=0.5)
    assert failure.value.timed_out


def test_a_hanging_handshake_ends_with_the_connect_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(http_client.EgressFailed) as failure:
        get(f"https://127.0.0.1:{server.getsockname()[1]}/", connect_timeout=0.3)
    assert failure.value.timed_out


def test_a_name_has_one_encoding_for_dns_tls_and_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: Any, egress_allow: Any, fresh_pool: None
) -> None:
    # Given a server with a certificate for a non-ASCII name, which EGRESS_ALLOW lists
    encoded = "xn--bcher-kva.test"
    names[encoded] = ["127.0.0.1"]
    egress_allow(hosts=frozenset({encoded}))
    path = certificate(tmp_path, encoded)
    monkeypatch.setattr(connection_pool.certifi, "where", lambda: str(path))
    asked: list[str] = []
    tls = tls_server(path)
    tls.sni_callback = lambda _, name, __: asked.append(name)
    with Receiver(tls=tls) as receiver:
        # When it is requested by that name, I expect an answer
        assert get(f"https://BÜCHER.test:{receiver.port}/") == (200, b"")

    # And the encoded name everywhere
    assert asked == [encoded]
    assert receiver.requests[0].headers["host"] == f"{encoded}:{receiver.port}"


@pytest.mark.parametrize(
    ("host", "sent"),
    [("127.1", "127.0.0.1"), ("0x7f000001", "127.0.0.1"), ("0177.0.0.1", "127.0.0.1"), ("LocalHost", "localhost")],
)
def test_the_host_header_has_the_usual_spelling(receiver: Receiver, host: str, sent: str) -> None:
    get(f"http://{host}:{receiver.port}/")
    assert receiver.requests[0].headers["host"] == f"{sent}:{receiver.port}"
