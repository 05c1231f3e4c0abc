"""The health probes /livez and /readyz."""

import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.models.functions import Now
from django.test import Client
from dramatiq.errors import ConnectionClosed

from jobs.models import Node
from orchestrator_site.base import broker
from orchestrator_site.base.values.http_urls import parse
from tests.helpers.api_calls import expect_error
from tests.helpers.factories import make_node

pytestmark = pytest.mark.django_db


def ready(client: Client, status: int) -> dict[str, Any]:
    answer = client.get("/readyz")
    assert answer.status_code == status, answer.content
    body: dict[str, Any] = answer.json()
    assert body.keys() == {"status", "checks"}
    assert body["checks"].keys() == {"database", "broker", "engine"}
    assert body["status"] == ("healthy" if status == 200 else "unhealthy")
    return {name: (check["status"], check.get("message", "")) for name, check in body["checks"].items()}


def make_heartbeat_old(node: Node) -> None:
    Node.objects.filter(pk=node.pk).update(seen_at=Now() - timedelta(seconds=31))


def failing(error: Exception) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


def test_livez_is_200(client: Client) -> None:
    assert client.get("/livez").status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_accept_any_host_name(client: Client, path: str) -> None:
    make_node()
    assert client.get(path, headers={"Host": "10.1.2.3:8080"}).status_code == 200
    assert client.head(path, headers={"Host": "no host at all"}).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_accept_get_and_head_only(client: Client, path: str) -> None:
    answer = client.post(path)
    expect_error(answer, 405)
    assert answer["Allow"] == "GET, HEAD"


def test_livez_needs_no_database(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "cursor", failing(OperationalError("away")))
    assert client.get("/livez").status_code == 200


def test_a_proxy_for_outgoing_requests_is_checked(client: Client, settings: Any) -> None:
    # Given a proxy that listens
    make_node()
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        url = f"http://user:s3cr3t@127.0.0.1:{proxy.getsockname()[1]}"
        settings.CONFIGURATION = replace(settings.CONFIGURATION, egress_proxy=parse(url))
        assert client.get("/readyz").json()["checks"]["egress_proxy"] == {"status": "healthy"}

    # When it is down, I expect the check to say what that means, without its address
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]["egress_proxy"]["status"]) == (503, "unhealthy")
    assert "127.0.0.1" not in answer.text
    assert "s3cr3t" not in answer.text


def test_ready_with_a_recent_heartbeat(client: Client) -> None:
    make_node("n1")
    checks = ready(client, 200)
    assert checks["database"] == checks["broker"] == ("healthy", "")
    assert checks["engine"] == ("healthy", "heartbeat from n1")


def test_readyz_names_silent_nodes_and_unenforced_limits(client: Client) -> None:
    node = make_node("n1")
    Node.objects.filter(pk=node.pk).update(warnings=["swap is not limited"])
    make_heartbeat_old(make_node("n2"))
    status, message = ready(client, 200)["engine"]
    assert status == "healthy"
    assert "no heartbeat from n2" in message
    assert "n1: swap is not limited" in message


def test_not_ready_without_a_node(client: Client) -> None:
    status, message = ready(client, 503)["engine"]
    assert (status, bool(message)) == ("unhealthy", True)


def test_not_ready_if_every_heartbeat_is_old(client: Client) -> None:
    make_heartbeat_old(make_node("n1"))
    assert ready(client, 503)["engine"] == ("unhealthy", "no heartbeat from n1")


def test_not_ready_without_a_broker(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    make_node()
    monkeypatch.setattr(broker, "ping", failing(ConnectionClosed("redis://:password@host")))
    status, message = ready(client, 503)["broker"]
    assert status == "unhealthy"
    assert "password" not in message


def test_not_ready_without_a_database(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "cursor", failing(OperationalError("password")))
    checks = ready(client, 503)
    assert checks["database"][0] == checks["engine"][0] == "unhealthy"
    assert "password" not in str(checks)
