"""Requests that are invalid HTTP are answered in JSON."""

import json
import socket
from http.client import HTTPResponse

import pytest

from tests.helpers.service_processes import Service

pytestmark = [pytest.mark.engine, pytest.mark.any_engine, pytest.mark.timeout(180)]

POST = b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
JOB = b'{"image": "alpine:latest"}'


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /livez HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (POST + b"Content-Length: -1\r\n\r\n" + JOB, 400),
        (POST + b"Content-Length: 26\r\nTransfer-Encoding: chunked\r\n\r\n" + JOB, 400),
        (POST + b"Transfer-Encoding: identical\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + JOB, 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1a\r\n{", 400),
        (POST + b"Content-Length: 100\r\n\r\n" + JOB, 400),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET /livez HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (POST + b"Content-Length: 2000000\r\n\r\n" + JOB, 413),
    ],
    ids=[
        "garbage",
        "long line",
        "long header",
        "length",
        "two lengths",
        "coding",
        "chunk",
        "cut chunk",
        "cut body",
        "no host",
        "two hosts",
        "bad host",
        "version",
        "too large",
    ],
)
def test_a_broken_request_is_answered_in_json(running: Service, request_bytes: bytes, status: int) -> None:
    # When this is sent, and nothing after it
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall(request_bytes)
        connection.shutdown(socket.SHUT_WR)
        with HTTPResponse(connection) as answer:
            answer.begin()

            # I expect an error in JSON, and a header that says that the connection closes
            assert answer.headers["Connection"] == "close"
            assert (answer.status, answer.headers["Content-Type"]) == (status, "application/json")
            assert json.loads(answer.read()).keys() == {"error"}
