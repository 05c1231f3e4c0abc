"""Clients that keep connections open, with or without a key, do not keep the service from answering others."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.helpers.service_processes import Service

pytestmark = [pytest.mark.engine, pytest.mark.any_engine, pytest.mark.timeout(180)]

CONNECTIONS = 2000
HALF_REQUESTS = [
    b"",
    b"G",
    b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Half: ",
    b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n" + b"{" * 500,
    b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n{",
]
LOG_BYTES = 10_000_000
ATTEMPTS = 3  # of which one must be in time, because the machine may be busy


@pytest.fixture
def files() -> Iterator[None]:
    """Allow enough file descriptors for the test's side of the connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(2 * CONNECTIONS, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def job_with_a_long_log(running: Service) -> str:
    line = "x" * 999
    job = running.post_job(command=f"yes {line} | head -c {LOG_BYTES}")
    assert running.wait_complete(job, 120)["status"] == "completed"
    return job


def connect(service: Service, data: bytes, *, receive_buffer: int | None = None) -> socket.socket:
    client = socket.socket()
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(("127.0.0.1", service.port))
    client.sendall(data)
    return client


def expect_answers_within_a_second(service: Service) -> None:
    """Send a probe, a POST and a GET of a list, each on a new connection."""
    for method, path, body, status in (
        ("GET", "/livez", None, 200),
        ("POST", "/v1/jobs", {"image": "alpine:latest", "command": ["true"]}, 202),
        ("GET", "/v1/jobs?limit=1", None, 200),
    ):
        seconds = []
        for _ in range(ATTEMPTS):
            started = time.monotonic()
            answer = requests.request(method, service.url + path, json=body, timeout=20)
            seconds.append(time.monotonic() - started)
            assert answer.status_code == status
        assert min(seconds) < 1, f"{method} {path} took {seconds}"


def resident_bytes(service: Service) -> int:
    """Return the memory of the web process, which is gunicorn's only child."""
    (parent,) = (process.pid for name, process in service.processes.items() if name in ("web", "embedded"))
    (child,) = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    pages = int(Path(f"/proc/{child}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.usefixtures("files")
def test_thousands_of_half_requests_do_not_block_others(running: Service) -> None:
    # Given 2,000 connections without a key that stop in the middle of their headers or their body
    expect_answers_within_a_second(running)
    before = resident_bytes(running)
    with ExitStack() as clients:
        for number in range(CONNECTIONS):
            clients.enter_context(connect(running, HALF_REQUESTS[number % len(HALF_REQUESTS)]))

        # I expect other clients to be answered within a second, and memory to stay flat
        expect_answers_within_a_second(running)
        assert resident_bytes(running) - before < 32 * 1024**2


def test_clients_that_stay_connected_after_413_do_not_block_others(running: Service) -> None:
    # Given twenty clients that were answered 413, some of which continue to send
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10000000\r\n\r\n"
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(running, head + b"x" * 100_000 * (number % 2))) for number in range(20)]
        for client in clients:
            assert client.recv(12) == b"HTTP/1.1 413"

        # I expect other clients to be answered within a second
        expect_answers_within_a_second(running)


def test_a_session_continues_after_413(running: Service) -> None:
    with requests.Session() as session:
        refused = session.post(f"{running.url}/v1/jobs", json={"image": "x" * 2_000_000}, timeout=20)
        assert (refused.status_code, refused.headers["Connection"]) == (413, "close")
        assert refused.json().keys() == {"error"}
        assert session.get(f"{running.url}/livez", timeout=20).status_code == 200


def test_clients_that_never_read_a_long_log_do_not_block_others(running: Service, job_with_a_long_log: str) -> None:
    # Given forty clients that request a log of 10 MB and never read it
    expect_answers_within_a_second(running)
    before = resident_bytes(running)
    request = f"GET /v1/jobs/{job_with_a_long_log}/logs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(running, request, receive_buffer=4096)) for _ in range(40)]
        for client in clients:
            assert client.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 200"

        # I expect other clients to be answered within a second, and memory to stay flat
        expect_answers_within_a_second(running)
        assert resident_bytes(running) - before < 64 * 1024**2


def test_many_readers_of_a_long_log_get_all_of_it(running: Service, job_with_a_long_log: str) -> None:
    # Given more readers than threads
    url = f"{running.url}/v1/jobs/{job_with_a_long_log}/logs"
    with ExitStack() as stack:
        answers = [stack.enter_context(requests.get(url, stream=True, timeout=60)) for _ in range(20)]
        expect_answers_within_a_second(running)
        for answer in answers[:3]:
            assert sum(map(len, answer.iter_content(65_536))) == LOG_BYTES
