"""Headers that a proxy might set have no effect if a client sends them."""

import json
import socket
from http.client import HTTPResponse

import pytest

from tests.helpers.service_processes import Service

pytestmark = [pytest.mark.engine, pytest.mark.any_engine, pytest.mark.timeout(180)]


def get(service: Service, path: str, *headers: str) -> tuple[int, bytes]:
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers, "", ""]
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall("\r\n".join(lines).encode())
        with HTTPResponse(connection) as answer:
            answer.begin()
            return answer.status, answer.read()


@pytest.mark.parametrize("name", ["Script_Name", "SCRIPT_NAME", "script_name", "Script-Name", "Path_Info", "HTTP_SCRIPT_NAME"])
def test_no_header_changes_the_path(running: Service, name: str) -> None:
    # Given a proxy that only passes /public on
    value = "/v1/docs" if "ath" in name else "/public"

    # When a client claims that the service is below that path
    status, body = get(running, "/public/v1/docs", f"{name}: {value}")

    # I expect the path to be unchanged
    assert status == 404
    assert json.loads(body).keys() == {"error"}


def test_a_prefix_that_the_path_lacks_is_ignored(running: Service) -> None:
    assert get(running, "/v1/openapi.json", "Script_Name: /elsewhere")[0] == 200
