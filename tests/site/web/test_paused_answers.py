"""Answers that wait for something to happen."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator_site.base.http.pauses import Pause, Pauses, Places
from orchestrator_site.web.connection_table import Limits
from tests.helpers.waiting import wait_for
from tests.site.web.clients import GET, LAST_GET, MANY, echo
from tests.site.web.web_servers import Web, is_at_end, read_answer, serving

pytestmark = pytest.mark.stateless
SHORT = b"GET /short HTTP/1.1\r\nHost: x\r\n\r\n"


class Pausing:
    """An application whose answers begin with `a`, pause and then continue with `b`, except at `/short`."""

    def __init__(self) -> None:
        self.pauses: list[Pause] = []
        self.closed = 0
        self.at_once = False  # the pause ends before the turn does
        self.may_yield = threading.Event()  # the turn then ends
        self.may_yield.set()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/short":
            return echo(environ, start_response)
        pauses = Pauses.of(environ)
        assert pauses is not None
        if not pauses.reserve():
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return []
        start_response("200 OK", [])
        return self._parts(pauses)

    def _parts(self, pauses: Pauses) -> Iterator[bytes]:
        try:
            yield b"a"
            pause = pauses.take()
            self.pauses.append(pause)
            if self.at_once:
                pause.end()
            self.may_yield.wait(30)
            yield b""
            yield b"b"
        finally:
            self.closed += 1


def wait_for_pauses(web: Web, count: int) -> None:
    wait_for(lambda: len(web.server._connections.paused()) == count, what="answers to pause")


def test_an_answer_goes_on_when_its_pause_ends() -> None:
    # Given more answers that have paused than threads
    application = Pausing()
    with serving(application) as web:
        clients = [web.connect(GET) for _ in range(MANY)]
        wait_for_pauses(web, MANY)

        # I expect another client to be answered, and each answer to be complete after its pause
        assert web.exchange(SHORT).body == b"GET /short "
        for pause in application.pauses:
            threading.Thread(target=pause.end).start()
        assert [read_answer(client).body for client in clients] == [b"ab"] * MANY

        # I expect the connections to be usable afterwards
        for client in clients:
            client.sendall(SHORT)
            assert read_answer(client).body == b"GET /short "
            client.close()


def test_a_pause_may_end_before_the_turn_does() -> None:
    application = Pausing()
    application.at_once = True
    with serving(application) as web:
        assert web.exchange(GET).body == b"ab"


def test_an_answer_does_not_go_on_before_its_turn_has_ended() -> None:
    # Given an answer whose pause has ended while its turn has not, as the server has noticed
    application = Pausing()
    application.at_once = True
    application.may_yield.clear()
    with serving(application) as web, web.connect(GET) as client:
        wait_for(lambda: [pause for pause in application.pauses if pause.ended], what="the pause to end")
        assert web.exchange(SHORT).body == b"GET /short "

        # When the turn ends, I expect the answer to go on
        application.may_yield.set()
        assert read_answer(client).body == b"ab"


def test_the_end_of_an_old_pause_does_nothing() -> None:
    application = Pausing()
    with serving(application) as web, web.connect(GET) as client:
        wait_for_pauses(web, 1)
        application.pauses[0].end()
        assert read_answer(client).body == b"ab"
        # Given the next answer of this connection, when the old pause ends again, I expect it to wait for its own
        client.sendall(GET)
        wait_for_pauses(web, 1)
        application.pauses[0].end()
        assert web.exchange(SHORT).body == b"GET /short "
        assert len(web.server._connections.paused()) == 1
        application.pauses[1].end()
        assert read_answer(client).body == b"ab"


def test_a_client_that_goes_away_gives_its_place_back() -> None:
    application = Pausing()
    with serving(application, Limits(pausing=1)) as web:
        with web.connect(GET):
            wait_for_pauses(web, 1)
            assert web.exchange(GET).status == 503
        wait_for(lambda: application.closed == 1, what="the answer to be closed")
        wait_for(lambda: web.server._places.free == 1, what="the place to become free")


def test_one_sharer_leaves_places_for_others() -> None:
    # Given eight places, and someone who takes as many as possible
    places = Places(8)

    def take_all(sharer: str | None) -> int:
        return sum(places.take(sharer) for _ in range(10))

    # I expect half of them to be left, for the next one half of these, and for others the last one
    assert [take_all("a"), take_all("b"), take_all("c")] == [4, 2, 1]
    assert take_all("d") == 1
    assert take_all("a") == 0
    for sharer, count in (("a", 4), ("b", 2), ("c", 1), ("d", 1)):
        for _ in range(count):
            places.give_back(sharer)
    assert take_all("a") == 4
    for _ in range(4):
        places.give_back("a")

    # And all of them if nothing is shared
    assert take_all(None) == 8


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the kernel is not Linux")
def test_the_kernel_gives_up_a_client_that_acknowledges_nothing() -> None:
    # A host that is switched off sends no end of its connections
    with serving(Pausing(), unacknowledged=5) as web, web.connect(GET):
        wait_for_pauses(web, 1)
        [connection] = web.server._connections.paused()
        assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000


def test_a_client_may_send_its_next_request_meanwhile() -> None:
    application = Pausing()
    with serving(application) as web, web.connect(GET) as client:
        wait_for_pauses(web, 1)
        client.sendall(SHORT)
        [connection] = web.server._connections.paused()
        wait_for(lambda: not connection.registered, what="the server to look away: it would do nothing else")
        assert web.exchange(SHORT).status == 200
        application.pauses[0].end()
        assert read_answer(client).body == b"ab"
        assert read_answer(client).body == b"GET /short "


def test_a_stop_ends_answers_at_their_pause() -> None:
    application = Pausing()
    with serving(application) as web, web.connect(GET) as client:
        wait_for_pauses(web, 1)
        web.begin_stop()
        assert read_answer(client).body == b"a"
        assert is_at_end(client)
        wait_for(lambda: application.closed == 1, what="the answer to be closed")


def test_answers_that_wait_are_closed_last_to_make_room() -> None:
    # Given a table full of connections, one of which follows something
    application = Pausing()
    with serving(application, Limits(connections=2)) as web, web.connect(LAST_GET) as follower:
        wait_for_pauses(web, 1)
        with web.connect() as idle:
            # When there is another, I expect the idle one to be closed
            assert web.exchange(SHORT).status == 200
            assert is_at_end(idle)
        assert len(web.server._connections.paused()) == 1
        follower.close()
