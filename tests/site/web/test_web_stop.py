"""The stop of a `web` process."""

import socket
from http.client import HTTPResponse

import pytest
import requests

from tests.helpers.service_processes import Service

pytestmark = [pytest.mark.production, pytest.mark.timeout(120)]


def test_a_long_poll_is_answered_when_the_process_stops(service: Service) -> None:
    # Given a client that waits for a job that no worker runs
    service.start("web")
    job = service.post_job()
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as client:
        client.sendall(f"GET /v1/jobs/{job}?wait=30 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert requests.get(f"{service.url}/livez", timeout=30).ok  # by then a thread handles the request before

        # When the process is told to stop, I expect an answer and the process to end by itself
        assert service.terminate("web") == 0
        with HTTPResponse(client) as answer:
            answer.begin()
            assert (answer.status, answer.headers["Connection"]) == (200, "close")


def test_a_followed_log_ends_when_the_process_stops(service: Service) -> None:
    # Given a client that follows the log of a job that no worker runs
    service.start("web")
    job = service.post_job()
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as client:
        client.sendall(f"GET /v1/jobs/{job}/logs HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".encode())
        with HTTPResponse(client) as answer:
            answer.begin()
            assert answer.readline() == b"retry: 1000\n"

            # When the process is told to stop, I expect the end of a complete answer and the process to end by itself
            assert service.terminate("web") == 0
            assert answer.read() == b"\n"
