"""Idle connections that are used again."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from orchestrator_site.base.egress import connection_pool, http_client
from orchestrator_site.base.intervals import EgressIntervals
from tests.helpers.receiver import Answer, Received, Receiver
from tests.site.base.egress.sending import get

pytestmark = pytest.mark.stateless

# However slow the machine is
get_reusing = partial(get, intervals=EgressIntervals(reuse=60))
RESET = Answer(fault="reset")


def test_a_reused_connection_is_checked_again(receiver: Receiver, names: Any, egress_allow: Any) -> None:
    # Given an allowed connection that is kept open
    names["hook.test"] = ["127.0.0.1"]
    url = f"http://hook.test:{receiver.port}/"
    get(url)

    # When the rules change
    egress_allow("10.0.0.0/8")

    # I expect a request on that connection to be refused, by an error that does not tell which address the name has
    with pytest.raises(
        http_client.EgressDenied, match=r"^hook\.test resolves to a non-public address that is not in EGRESS_ALLOW$"
    ):
        get(url)
    assert len(receiver.requests) == 1


def test_connections_are_reused(receiver: Receiver) -> None:
    for _ in range(3):
        get(receiver.url)
    assert len({received.peer for received in receiver.requests}) == 1


def test_an_idle_connection_is_not_reused(receiver: Receiver) -> None:
    # Given a connection that may not be idle at all
    intervals = EgressIntervals(reuse=0.0)
    get(receiver.url, intervals=intervals)

    # When there is another request, I expect it on a new connection
    get(receiver.url, intervals=intervals)
    assert len({received.peer for received in receiver.requests}) == 2
    assert EgressIntervals().reuse == 2.0


def test_connections_of_simultaneous_requests_are_reused(receiver: Receiver, fresh_pool: None) -> None:
    # Given a server that answers a certain number of requests at once
    http_client._pool()  # otherwise each thread would make its own
    count = connection_pool.MAX_IDLE_CONNECTIONS
    together = threading.Barrier(count, timeout=10)

    def respond(_: Received) -> Answer:
        together.wait()
        return Answer()

    receiver.respond = respond

    # When they are repeated, I expect them on the same connections
    with ThreadPoolExecutor(count) as threads:
        for _ in range(3):
            assert list(threads.map(get_reusing, [receiver.url] * count)) == [(200, b"")] * count
    assert len({received.peer for received in receiver.requests}) == count


# -- closed while a request is on its way ----------------------------------------------------------


def test_a_get_on_a_connection_that_was_closed_meanwhile_is_sent_again(receiver: Receiver) -> None:
    # Given a server that closes an idle connection when the next request is on its way
    receiver.will(Answer(), RESET, Answer(body=b"file"))
    get_reusing(receiver.url)

    # When a GET meets that, I expect an answer from another connection
    assert get_reusing(receiver.url) == (200, b"file")
    first, second, third = (received.peer for received in receiver.requests)
    assert first == second != third


def test_it_is_sent_again_only_once(receiver: Receiver) -> None:
    receiver.will(Answer(), RESET, RESET)
    get_reusing(receiver.url)
    with pytest.raises(http_client.EgressFailed):
        get_reusing(receiver.url)
    assert len(receiver.requests) == 3


def test_a_new_connection_that_breaks_is_an_error(receiver: Receiver) -> None:
    receiver.will(RESET)
    with pytest.raises(http_client.EgressFailed):
        get_reusing(receiver.url)
    assert len(receiver.requests) == 1


def test_what_a_server_may_have_done_is_not_asked_for_again(receiver: Receiver) -> None:
    receiver.will(Answer(), RESET)
    get_reusing(receiver.url)
    with pytest.raises(http_client.EgressFailed):
        get_reusing(receiver.url, method="POST", body=b"event")
    assert len(receiver.requests) == 2


def test_a_request_that_was_ended_here_is_not_sent_again(receiver: Receiver) -> None:
    # Given an idle connection to a server that does not answer the next request
    connections: list[socket.socket] = []

    def end(received: Received) -> Answer:
        connections[-1].shutdown(socket.SHUT_RDWR)
        return Answer()

    get_reusing(receiver.url)
    receiver.respond = end

    # When the caller ends that request, I expect no other
    with pytest.raises(http_client.EgressFailed):
        get_reusing(receiver.url, on_socket=connections.append)
    assert len(receiver.requests) == 2
    assert len(connections) == 1
