"""Requests that end at their time-outs, or when another thread ends them."""

import socket
import threading
from collections import deque
from typing import Any

import pytest

from orchestrator_site.base.egress import http_client
from orchestrator_site.base.egress.connection_pool import ConnectionPool
from orchestrator_site.base.egress.guarded_connections import GuardedConnection, shut_down
from tests.helpers.receiver import Answer, Receiver
from tests.site.base.egress.sending import SECRET, TIMES, Zeros, get

pytestmark = pytest.mark.stateless


@pytest.mark.parametrize("fault", ["hang", "drip", "drip_headers", "endless"])
def test_the_total_timeout_ends_any_answer(receiver: Receiver, fault: Any) -> None:
    # Given a server whose answer never ends
    receiver.will(Answer(fault=fault))

    # When a request has a total time-out, I expect it to time out
    with (
        pytest.raises(http_client.EgressFailed) as failure,
        http_client.open("GET", receiver.url, total_timeout=0.5, **TIMES) as response,
    ):
        deque(http_client.chunks(response), maxlen=0)
    assert failure.value.timed_out


def test_a_silent_server_ends_with_the_read_timeout(receiver: Receiver) -> None:
    receiver.will(Answer(fault="hang"))
    with pytest.raises(http_client.EgressFailed, match="sent nothing for") as failure:
        get(receiver.url, read_timeout=0.2)
    assert failure.value.timed_out


def test_a_server_that_reads_nothing_ends_with_the_read_timeout() -> None:
    # Given a server that accepts connections and never reads
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(http_client.EgressFailed) as failure:
        # When a large body is sent to it
        get(f"http://127.0.0.1:{server.getsockname()[1]}/", method="PUT", body=Zeros(100_000_000), read_timeout=0.3)
    assert failure.value.timed_out


def test_a_request_that_is_over_does_not_end_the_next_one(
    receiver: Receiver, fresh_pool: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a request whose time is up at the moment when its connection may be used again
    sockets: list[socket.socket] = []
    release = ConnectionPool.release

    def release_too_late(pool: ConnectionPool, connection: GuardedConnection) -> None:
        release(pool, connection)
        shut_down(sockets[0])

    monkeypatch.setattr(ConnectionPool, "release", release_too_late)
    get(receiver.url, on_socket=sockets.append)

    # When the next request is sent, I expect the connection to be open
    get(receiver.url)
    assert len({received.peer for received in receiver.requests}) == 1


def test_another_thread_can_end_a_blocked_request(receiver: Receiver) -> None:
    # Given a request whose answer does not come
    receiver.will(Answer(fault="hang"))
    sockets: list[socket.socket] = []
    failures: list[Exception] = []

    def send() -> None:
        try:
            get(receiver.url, on_socket=sockets.append)
        except http_client.EgressFailed as error:
            failures.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    receiver.wait_for(1)

    # When its socket is shut down
    sockets[0].shutdown(socket.SHUT_RDWR)

    # I expect it to fail at once, and the socket to be closed
    thread.join(5)
    assert len(failures) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        sockets[0].shutdown(socket.SHUT_RDWR)


def test_a_refused_connection_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(http_client.EgressFailed, match="connection refused") as failure:
        get(f"http://127.0.0.1:{port}/?{SECRET}")
    assert not failure.value.timed_out
    assert SECRET not in str(failure.value)


def test_a_name_without_an_address_is_a_failure(names: Any) -> None:
    names["nowhere.test"] = []
    with pytest.raises(http_client.EgressFailed):
        get("http://nowhere.test/")


def test_a_resolver_that_hangs_ends_with_the_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(30) and [])
    with pytest.raises(http_client.EgressFailed, match="cannot be resolved within") as failure:
        get("http://slow.test/", connect_timeout=0.1)
    released.set()
    assert failure.value.timed_out
