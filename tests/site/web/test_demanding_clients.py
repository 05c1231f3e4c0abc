"""Slow, many and unresponsive clients of the web server."""

import errno
import select
import socket
import threading
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from orchestrator_site.base.measurements.metrics import HTTP_REQUESTS
from orchestrator_site.web.connection_table import Limits
from tests.helpers.waiting import wait_for
from tests.site.web.clients import (
    GET,
    HALF_BODY,
    HALF_HEAD,
    LAST_GET,
    MANY,
    TOO_LONG,
    Long,
    echo,
    expect_served,
    read_to_end,
)
from tests.site.web.web_servers import THREADS, is_at_end, read_answer, serving

pytestmark = pytest.mark.stateless

BEGIN_OF_BODY = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n"


class TestSlowClients:
    @pytest.mark.parametrize("half", [b"", b"G", HALF_HEAD, HALF_BODY])
    def test_an_incomplete_request_blocks_no_thread(self, half: bytes) -> None:
        # Given more clients with incomplete requests than threads
        with serving(echo) as web, ExitStack() as clients:
            for _ in range(MANY):
                clients.enter_context(web.connect(half))

            # I expect others to be served
            expect_served(web)

    @pytest.mark.parametrize(("half", "limit"), [(HALF_HEAD, "head"), (HALF_BODY, "body")])
    def test_an_incomplete_request_is_answered_408(self, half: bytes, limit: str) -> None:
        with serving(echo, **{limit: 0.1}) as web, web.connect(half) as client:
            answer = read_answer(client)
            assert (answer.status, answer.closes) == (408, True)
            assert is_at_end(client)

    @pytest.mark.parametrize(("half", "limit"), [(HALF_HEAD, "head"), (BEGIN_OF_BODY, "body")])
    def test_a_slow_request_gets_no_more_time(self, half: bytes, limit: str) -> None:
        # When a client sends a byte every now and then, for as long as the test waits
        with serving(echo, **{limit: 0.3}) as web, web.connect(half) as client:

            def is_answered() -> bool:
                client.settimeout(0.05)
                try:
                    return client.recv(12) == b"HTTP/1.1 408"
                except TimeoutError:
                    client.sendall(b"x")
                    return False

            # I expect it to be answered 408
            wait_for(is_answered, what="the answer 408")

    def test_an_idle_connection_is_closed_without_an_answer(self) -> None:
        with serving(echo, idle=0.1) as web, web.connect() as new, web.connect(GET) as kept:
            assert read_answer(kept).status == 200
            assert new.recv(1) == b""
            assert kept.recv(1) == b""

    def test_a_refused_request_is_counted(self) -> None:
        before = HTTP_REQUESTS.value()

        with serving(echo) as web, web.connect(TOO_LONG) as client:
            assert read_answer(client).status == 413

        assert HTTP_REQUESTS.value() == before + 1

    def test_a_client_that_does_not_close_is_closed(self) -> None:
        with serving(echo, linger=0.1) as web, web.connect(TOO_LONG) as client:
            assert read_answer(client).status == 413
            wait_for(lambda: web.server.is_done, what="the connection to be closed")


class TestTooManyConnections:
    def test_the_oldest_idle_connection_is_closed_first(self) -> None:
        # Given the maximum number of connections, of which two are idle
        with serving(echo, Limits(connections=3)) as web, web.connect(GET + HALF_HEAD) as half:
            assert read_answer(half).status == 200
            with web.connect() as older, web.connect() as younger:
                # When there is one more, I expect the connection that has been idle longest to be closed
                expect_served(web)
                assert older.recv(1) == b""
                younger.sendall(GET)
                assert read_answer(younger).status == 200
                half.sendall(b"x\r\n\r\n")
                assert read_answer(half).status == 200

    def test_the_oldest_incomplete_request_is_closed_next(self) -> None:
        with (
            serving(echo, Limits(connections=2)) as web,
            web.connect(HALF_HEAD) as older,
            web.connect(GET + HALF_HEAD) as younger,
        ):
            assert read_answer(younger).status == 200
            expect_served(web)  # by then both have been read
            answer = read_answer(older)
            assert (answer.status, answer.closes, answer.headers["Retry-After"]) == (503, True, "1")
            younger.sendall(b"x\r\n\r\n")
            assert read_answer(younger).status == 200

    def test_a_complete_request_is_never_dropped(self) -> None:
        # Given as many requests in progress as connections are allowed
        go_on = threading.Event()
        begun = 0

        def wait(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            nonlocal begun
            begun += 1
            assert go_on.wait(30)
            return echo(environ, start_response)

        with serving(wait, Limits(connections=2)) as web, ExitStack() as clients:
            sent = [clients.enter_context(web.connect(GET)) for _ in range(2)]
            wait_for(lambda: begun == 2, what="both to begin")

            # When there is one more, I expect all three to be answered
            sent.append(clients.enter_context(web.connect(GET)))
            go_on.set()
            assert [read_answer(client).status for client in sent] == [200] * 3

    def test_incomplete_requests_share_a_memory_limit(self) -> None:
        # Given memory for three incomplete requests
        half = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 900_000
        with serving(echo, Limits(memory_bytes=3_000_000)) as web, ExitStack() as clients:
            sent = [clients.enter_context(web.connect(half)) for _ in range(4)]

            # I expect the first to be refused when the fourth arrives
            assert read_answer(sent[0]).status == 503
            sent[3].sendall(b"x" * 100_000)
            assert read_answer(sent[3]).status == 200

    def test_requests_that_wait_for_a_thread_share_the_limit(self) -> None:
        # Given that all threads are busy, and memory for two more requests of this size
        go_on = threading.Event()
        request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n" + b"x" * 900_000

        def wait(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            assert go_on.wait(30)
            start_response("204 No Content", [])
            return []

        with serving(wait, Limits(memory_bytes=2_000_000)) as web, ExitStack() as clients:
            for _ in range(THREADS):
                clients.enter_context(web.connect(GET))
            # When there are three
            sent = [clients.enter_context(web.connect(request)) for _ in range(3)]

            # I expect one to be refused and the others to be answered
            (refused,), _, _ = select.select(sent, [], [], 30)
            assert read_answer(refused).status == 503
            go_on.set()
            assert [read_answer(client).status for client in sent if client is not refused] == [204] * 2

    def test_bytes_after_the_last_request_use_no_memory(self) -> None:
        # Given clients that send more after their last request and stay connected, and little memory
        with serving(echo, Limits(memory_bytes=200_000)) as web, ExitStack() as clients:
            for _ in range(4):
                client = clients.enter_context(web.connect(LAST_GET + b"x" * 60_000))
                assert read_answer(client).status == 200
                assert is_at_end(client)

            # When a request arrives that needs most of it, I expect it to be served
            body = b"x" * 150_000
            head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            assert web.exchange(head + body).status == 200

    def test_the_loop_survives_a_lack_of_file_descriptors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Listener(socket.socket):
            failed = False

            def accept(self) -> Any:
                if not self.failed:
                    self.failed = True
                    raise OSError(errno.EMFILE, "too many open files")
                return super().accept()

        monkeypatch.setattr(socket, "socket", Listener)
        with serving(echo) as web:
            expect_served(web)


class TestClientsThatDoNotRead:
    def test_clients_that_do_not_read_block_no_thread(self) -> None:
        # Given more clients than threads that request a long answer and do not read it
        application = Long()
        with serving(application) as web, ExitStack() as clients:
            for _ in range(MANY):
                clients.enter_context(web.connect(GET, receive_buffer=4096))
            wait_for(lambda: application.begun == MANY, what="all answers to begin")

            # I expect others to be served, and only a little of each answer to be produced
            expect_served(web)
            assert application.produced < MANY * 2_000_000

    def test_large_answers_share_the_memory_limit(self) -> None:
        # Given answers of 5 MB in one piece, and memory for three of them
        begun = 0

        def large(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            nonlocal begun
            begun += 1
            start_response("200 OK", [("Content-Length", "5000000")])
            return [b"x" * 5_000_000]

        with serving(large, Limits(memory_bytes=16_000_000)) as web, ExitStack() as clients:
            # When five clients do not read theirs at once
            sent = [clients.enter_context(web.connect(LAST_GET, receive_buffer=4096)) for _ in range(5)]
            wait_for(lambda: begun == 5, what="all answers to be produced")

            # I expect no more of them to be given up than necessary
            whole = 0
            for client in sent:
                with suppress(ConnectionResetError):
                    whole += len(read_to_end(client)) > 5_000_000
            assert whole in (3, 4)

    def test_an_answer_that_is_not_read_is_given_up(self) -> None:
        application = Long()
        with serving(application, stall=0.1) as web, web.connect(GET, receive_buffer=4096) as client:
            wait_for(lambda: application.closed == 1, what="the answer to be closed")
            with pytest.raises(ConnectionResetError):
                read_to_end(client)

    def test_an_answer_that_is_read_too_slowly_is_given_up(self) -> None:
        # Given a client that reads a little every now and then
        application = Long()
        with (
            serving(application, Limits(slow_bytes=100_000_000), slow=0.5) as web,
            web.connect(GET, receive_buffer=4096) as client,
        ):

            def is_closed() -> bool:
                with suppress(ConnectionResetError):
                    client.recv(10_000)
                return application.closed == 1

            # I expect its answer to be given up
            wait_for(is_closed, what="the answer to be closed")

    def test_long_answers_use_a_part_of_the_threads(self) -> None:
        # Given long answers whose first part is produced at once, and whose rest blocks
        go_on, waiting = threading.Event(), threading.Semaphore(0)

        def between(produced: int) -> None:
            if produced > 1_000_000:
                waiting.release()
                assert go_on.wait(30)

        application = Long(between)
        with serving(application, Limits(long_answers=2)) as web:
            readers = [threading.Thread(target=lambda: web.exchange(GET)) for _ in range(MANY)]
            for reader in readers:
                reader.start()
            for _ in range(2):
                assert waiting.acquire(timeout=30)

            # I expect the other threads to serve other requests
            expect_served(web)
            go_on.set()
            for reader in readers:
                reader.join()

    def test_a_client_that_disconnects_leaves_nothing(self) -> None:
        application = Long()
        with serving(application) as web:
            web.connect(GET, receive_buffer=4096).close()
            wait_for(lambda: application.closed == 1, what="the answer to be closed")
            wait_for(lambda: web.server.is_done, what="the connection to be closed")

    def test_a_client_that_disconnects_before_its_answer_leaves_nothing(self) -> None:
        begun, go_on = threading.Event(), threading.Event()

        def wait(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            begun.set()
            assert go_on.wait(30)
            return echo(environ, start_response)

        with serving(wait) as web:
            with web.connect(GET):
                assert begun.wait(30)
            go_on.set()
            wait_for(lambda: web.server.is_done, what="the connection to be closed")
