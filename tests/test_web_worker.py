"""The threads of `web`: what a client can do to them by saying little."""

import logging
import socket
from collections.abc import Iterator

import pytest
from gunicorn.config import Config
from gunicorn.workers.gthread import _DEFER, TConn

from orchestrator_site import web_worker
from orchestrator_site.web_worker import WebWorker


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, TConn]]:
    """A client's end of a connection, and the worker's."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        served, address = listener.accept()
        with served:
            yield client, TConn(Config(), served, address, listener.getsockname())


@pytest.fixture
def worker() -> WebWorker:
    worker = WebWorker.__new__(WebWorker)
    worker.cfg, worker.log = Config(), logging.getLogger("gunicorn.error")
    return worker


def test_a_client_that_says_nothing_takes_no_thread(worker: WebWorker, pair: tuple[socket.socket, TConn]) -> None:
    # When a thread is given a connection on which nothing has come, I expect it to be free at once
    assert worker.handle(pair[1]) is _DEFER


def test_a_client_that_stops_amid_its_request_is_cut_off(
    worker: WebWorker, pair: tuple[socket.socket, TConn], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given half a request, and nothing after it
    client, connection = pair
    monkeypatch.setattr(web_worker, "REQUEST_SECONDS", 0.1)
    client.sendall(b"GET /livez HTTP/1.1\r\nHost: ")
    connection.wait_for_data(10)

    # When a thread reads it, I expect the connection to be given up
    assert worker.handle(connection) is False
