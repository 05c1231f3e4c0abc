"""Requests, failing applications and the stop of the web server."""

import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest

from orchestrator_site.web import request_reader
from tests.helpers.waiting import wait_for
from tests.site.web.clients import (
    GET,
    HALF_BODY,
    HALF_HEAD,
    LAST_GET,
    LONG_ANSWER_BYTES,
    TOO_LONG,
    Long,
    echo,
    expect_served,
    read_to_end,
)
from tests.site.web.web_servers import is_at_end, read_answer, serving

pytestmark = pytest.mark.stateless


class TestRequests:
    def test_a_connection_serves_several_requests(self) -> None:
        with serving(echo) as web, web.connect() as client:
            for body in (b"first", b"second"):
                client.sendall(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                answer = read_answer(client)
                assert (answer.body, answer.closes) == (b"POST /a " + body, False)

    def test_pipelined_requests_are_answered_in_order(self) -> None:
        # When I send three requests at once
        chunked = b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        with serving(echo) as web, web.connect(GET + chunked + LAST_GET) as client:
            received = read_to_end(client)

        # I expect three answers, and the end of the connection after the last
        assert [received.find(body) > 0 for body in (b"GET / ", b"POST /b abc", b"GET /last ")] == [True] * 3
        assert received.index(b"GET / ") < received.index(b"POST /b abc") < received.index(b"GET /last ")
        assert received.count(b"HTTP/1.1 200 OK") == 3

    def test_a_request_sent_before_the_previous_answer_is_served(self) -> None:
        # Given a request that is being answered
        begun, go_on = threading.Event(), threading.Event()

        def wait(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            if environ["PATH_INFO"] == "/wait":
                begun.set()
                assert go_on.wait(30)
            return echo(environ, start_response)

        with serving(wait) as web, web.connect(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n") as client:
            assert begun.wait(30)
            # When another is sent on the same connection, I expect both to be answered
            client.sendall(GET)
            expect_served(web)
            go_on.set()
            assert [read_answer(client).body for _ in range(2)] == [b"GET /wait ", b"GET / "]

    def test_http_1_0_closes_the_connection_without_keep_alive(self) -> None:
        with serving(Long()) as web:
            answer = web.exchange(b"GET /short HTTP/1.0\r\n\r\n")
            assert answer.closes
            kept = web.exchange(b"GET /short HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert not kept.closes
            long = web.exchange(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert (long.closes, len(long.body)) == (True, LONG_ANSWER_BYTES)

    def test_head_has_no_body_and_generates_none(self) -> None:
        application = Long()
        with serving(application) as web, web.connect(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n") as client:
            assert read_answer(client, "HEAD").status == 200
            wait_for(lambda: application.closed == 1, what="the answer to be closed")
            assert application.produced == 50_000
            client.sendall(b"GET /short HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_answer(client).body == b"GET /short "

    def test_a_long_answer_arrives_complete(self) -> None:
        with serving(Long()) as web:
            assert web.exchange(GET).body == b"x" * LONG_ANSWER_BYTES

    def test_a_client_that_expects_100_continue_gets_it(self) -> None:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        with serving(echo) as web, web.connect(head) as client:
            assert client.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(b"abc")
            assert read_answer(client).body == b"POST / abc"

    def test_100_continue_is_not_sent_for_a_refused_body(self) -> None:
        with serving(echo) as web:
            answer = web.exchange(TOO_LONG.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
            assert answer.status == 413

    @pytest.mark.parametrize(
        ("request_bytes", "status"),
        [
            (b"GARBAGE\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (HALF_HEAD, 400),
            (HALF_BODY, 400),
            (TOO_LONG, 413),
            (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", 413),
        ],
    )
    def test_a_refusal_is_json_and_closes_the_connection(self, request_bytes: bytes, status: int) -> None:
        with serving(echo) as web, web.connect(request_bytes) as client:
            client.shutdown(socket.SHUT_WR)
            answer = read_answer(client)
            assert (answer.status, answer.closes) == (status, True)
            assert answer.error
            assert len(answer.headers["X-Request-Id"]) == 32
            assert is_at_end(client)

    def test_a_refused_head_request_has_no_body(self) -> None:
        with serving(echo) as web, web.connect(b"HEAD / HTTP/1.1\r\n\r\n") as client:
            received = client.recv(65536)
            assert received.startswith(b"HTTP/1.1 400 ")
            assert received.endswith(b"\r\n\r\n")
            assert is_at_end(client)

    def test_a_client_can_read_413_after_sending_the_whole_body(self) -> None:
        # Given a client that, like most, reads nothing before it has sent 5 MB
        with serving(echo) as web, web.connect(TOO_LONG) as client:
            for _ in range(50):
                client.sendall(b"x" * 100_000)

            # I expect it to get the answer
            answer = read_answer(client)
            assert (answer.status, answer.closes) == (413, True)

    def test_the_next_request_of_a_session_works_after_413(self) -> None:
        with serving(echo) as web:
            session = HTTPConnection(*web.address, timeout=30)
            for _ in range(2):
                session.request("POST", "/", b"x" * 5_000_000)
                refused = session.getresponse()
                assert (refused.status, refused.read()[:1]) == (413, b"{")
                session.request("GET", "/a")
                with session.getresponse() as answer:
                    assert answer.read() == b"GET /a "
            session.close()


class TestFailingApplications:
    def test_an_error_before_the_headers_is_500(self) -> None:
        def fail(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            raise ValueError("secret")

        with serving(fail) as web:
            answer = web.exchange(GET)
            assert (answer.status, answer.closes) == (500, True)
            assert "secret" not in answer.error

    def test_an_invalid_response_header_is_500(self) -> None:
        def split(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", [("X", "a\r\nSet-Cookie: secret")])
            return []

        with serving(split) as web:
            answer = web.exchange(GET)
            assert (answer.status, answer.closes) == (500, True)
            assert answer.headers["Set-Cookie"] is None
            assert "secret" not in answer.error

    def test_an_error_after_the_headers_resets_the_connection(self) -> None:
        def fail(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [])
            yield b"x"
            raise ValueError

        with serving(fail) as web, web.connect(b"GET / HTTP/1.0\r\n\r\n") as client, pytest.raises(ConnectionResetError):
            read_to_end(client)

    def test_an_error_of_the_server_closes_one_connection_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(request: Any) -> None:
            if request.path == "/fail":
                raise ValueError

        # Given a request that makes the server fail
        monkeypatch.setattr(request_reader, "_check_target_and_host", fail)
        with serving(echo) as web, web.connect(b"GET /fail HTTP/1.1\r\nHost: x\r\n\r\n") as client:
            # I expect its connection to be closed and others to be served
            assert is_at_end(client)
            expect_served(web)


class TestStop:
    def test_pending_requests_are_answered_at_a_stop(self) -> None:
        # Given a request that is being answered, one that is arriving, and an idle connection
        begun, go_on = threading.Event(), threading.Event()

        def wait(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            if environ["PATH_INFO"] == "/wait":
                begun.set()
                assert go_on.wait(30)
            return echo(environ, start_response)

        with serving(wait, stop=0.2) as web, web.connect(GET) as idle, web.connect(HALF_BODY) as arriving:
            assert read_answer(idle).status == 200
            with web.connect(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n") as waiting:
                assert begun.wait(30)

                # When the server is told to stop
                web.begin_stop()
                assert idle.recv(1) == b""
                arriving.sendall(b"67890")
                go_on.set()

                # I expect both to be answered, and the server to end
                answers = [read_answer(client) for client in (arriving, waiting)]
                assert [(answer.status, answer.closes) for answer in answers] == [(200, True)] * 2
            web.wait_for_end()
