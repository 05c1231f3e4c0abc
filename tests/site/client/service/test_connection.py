"""Requests survive a service that restarts or is busy, and what is not the service is refused in a sentence."""

import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import pytest
from environment import free_port

from orchestrator_site.base.intervals import ClientIntervals
from orchestrator_site.client.errors import ClientError, ServiceAway, ServiceRefused
from orchestrator_site.client.service.address import key_of
from orchestrator_site.client.service.connection import Connection, RefusedAfterRetry
from tests.site.client.peers import Peer, Reply, serving

pytestmark = pytest.mark.stateless

INTERVALS: Final = ClientIntervals(service_retry=0.01, service_retry_max=0.02, service_blip=0.0, service_away=5.0)
KEY: Final = "the-key-of-the-test"
GET: Final = ("GET", "/v1/jobs/hello")


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    with serving(peer):
        yield peer


@dataclass
class Waits:
    """What the client says and how long it sleeps."""

    said: list[str] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    def connection(self, url: str, key: str | None = None, intervals: ClientIntervals = INTERVALS) -> Connection:
        return Connection(
            url,
            key,
            on_wait=self.said.append,
            on_return=lambda: self.said.append("back"),
            sleep=self.sleep,
            intervals=intervals,
        )

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def test_a_busy_service_is_asked_again_no_sooner_than_it_says(peer: Peer) -> None:
    # Given a service that is busy four times
    waits = Waits()
    peer.replies.extend(
        [
            Reply(503, {"error": "the service is full"}, {"Retry-After": "2"}),
            Reply(429, headers={"Retry-After": "1"}),
            Reply(502),
            Reply(408),
            Reply(200),
        ]
    )

    # When it is asked
    waits.connection(peer.url).call_json(*GET)

    # I expect the pauses that it asks for, and one message each when it goes away, with the reason, and when it is back
    assert waits.slept[:2] == [2.0, 1.0]
    assert len(waits.slept) == 4
    assert waits.said == ["the service is full", "back"]


def test_a_short_interruption_is_not_reported(peer: Peer) -> None:
    waits = Waits()
    peer.replies.extend([Reply(0), Reply(200)])

    waits.connection(peer.url, intervals=ClientIntervals()).call_json(*GET)

    assert waits.said == []


@pytest.mark.parametrize("lost", [Reply(0), Reply(503), Reply(504)])
def test_a_job_whose_answer_was_lost_is_posted_again(peer: Peer, lost: Reply) -> None:
    peer.replies.extend([lost, Reply(202, {"id": "hello"})])

    Waits().connection(peer.url).call_json("POST", "/v1/jobs", body=b'{"id": "hello"}')

    assert [body for *_, body in peer.requests] == [b'{"id": "hello"}'] * 2


def test_a_conflict_after_a_lost_answer_is_told_from_one_at_once(peer: Peer) -> None:
    # Given a job that the service has, once before it was posted and once because the answer was lost
    conflict = Reply(409, {"error": "there is a job with this id", "field": "id"})
    connection = Waits().connection(peer.url)

    peer.replies.append(conflict)
    with pytest.raises(ServiceRefused) as at_once:
        connection.call("POST", "/v1/jobs", body=b"{}")
    peer.replies.extend([Reply(0), conflict])
    with pytest.raises(RefusedAfterRetry):
        connection.call("POST", "/v1/jobs", body=b"{}")

    assert not isinstance(at_once.value, RefusedAfterRetry)


def test_a_request_that_was_only_throttled_had_no_effect(peer: Peer) -> None:
    peer.replies.extend([Reply(429), Reply(409, {"error": "there is a job with this id"})])

    with pytest.raises(ServiceRefused) as refused:
        Waits().connection(peer.url).call("POST", "/v1/jobs", body=b"{}")

    assert not isinstance(refused.value, RefusedAfterRetry)


def test_a_service_that_was_never_reached_is_reported_at_once() -> None:
    waits = Waits()

    with pytest.raises(ClientError, match=r"cannot reach the service .* \(connection refused\): is it running"):
        waits.connection(f"http://127.0.0.1:{free_port()}").call(*GET)

    assert not waits.slept


def test_a_server_that_is_not_one_of_http_is_reported_at_once() -> None:
    # Given an SSH server, say
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(b"SSH-2.0-OpenSSH\r\n")
                client.recv(65536)

        thread = threading.Thread(target=greet)
        thread.start()
        waits = Waits()

        with pytest.raises(ClientError, match=r"check ORCHESTRATOR_URL"):
            waits.connection(f"http://127.0.0.1:{server.getsockname()[1]}").call(*GET)
        thread.join()

    assert not waits.slept


def test_a_proxy_that_was_never_reached_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    waits = Waits()

    with pytest.raises(ClientError, match=r"cannot reach the service .* \(connection refused\)"):
        waits.connection("http://service.invalid").call(*GET)

    assert not waits.slept


def test_a_proxy_gets_its_password_and_the_request(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a proxy whose URL has a password
    monkeypatch.setenv("http_proxy", peer.url.replace("//", "//user:the%20password@"))
    peer.replies.append(Reply(200, {"id": "hello"}))

    answer = Waits().connection("http://service.invalid").call_json(*GET)

    # I expect the request for the service to arrive at the proxy
    assert answer == {"id": "hello"}
    _, path, headers, _ = peer.requests[0]
    assert path == "http://service.invalid/v1/jobs/hello"
    assert headers["proxy-authorization"] == f"Basic {b64encode(b'user:the password').decode()}"


def test_a_service_on_this_machine_needs_no_proxy(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    peer.replies.append(Reply(200))

    Waits().connection(peer.url).call(*GET)

    assert peer.requests[0][1] == "/v1/jobs/hello"


def test_a_service_that_restarts_is_waited_for() -> None:
    # Given a service that has answered, and has stopped
    peer, port = Peer(), free_port()
    again = serving(peer, port)

    class Restart(Waits):
        """The service starts again while the client waits for the first time."""

        def sleep(self, seconds: float) -> None:
            if not self.slept:
                peer.replies.append(Reply(200, {"id": "hello"}))
                again.__enter__()
            super().sleep(seconds)

    waits = Restart()
    connection = waits.connection(f"http://127.0.0.1:{port}")
    with serving(peer, port):
        peer.replies.append(Reply(200))
        connection.call(*GET)

    # When it is asked
    try:
        answer = connection.call_json(*GET)
    finally:
        again.__exit__(None, None, None)

    # I expect its answer, and that the client said so
    assert answer == {"id": "hello"}
    assert waits.said == ["connection refused", "back"]


def test_an_answer_that_breaks_off_is_asked_for_again(peer: Peer) -> None:
    # Given a service that is killed in the middle of an answer
    peer.replies.extend([Reply(200, b"first\nsecond\n", missing=7), Reply(200, b"first\nsecond\n")])

    # When a text is asked for, I expect all of it
    assert Waits().connection(peer.url).call(*GET, accept="text/plain") == b"first\nsecond\n"


@pytest.mark.parametrize(("status", "may_be_done"), [(503, True), (429, False), (408, False)])
def test_the_client_gives_up_some_day(peer: Peer, status: int, may_be_done: bool) -> None:
    peer.replies.append(Reply(status, {"error": "too much to do"}, {"Retry-After": "86400"}))

    with pytest.raises(ServiceAway, match=rf"answers {status} \(too much to do\): giving up$") as error:
        Waits().connection(peer.url, intervals=ClientIntervals(service_away=0.0)).call(*GET)

    assert error.value.may_be_done == may_be_done


def test_the_key_is_sent_and_never_shown(peer: Peer) -> None:
    connection = Waits().connection(peer.url, KEY)
    peer.replies.append(Reply(401, {"error": "the key is unknown"}))

    with pytest.raises(ServiceRefused) as refused:
        connection.call(*GET)

    assert peer.requests[0][2]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(refused.value)
    assert "ORCHESTRATOR_API_KEY" in str(refused.value)


def test_a_redirect_is_not_followed_with_the_key(peer: Peer) -> None:
    peer.replies.append(Reply(302, headers={"Location": "http://127.0.0.1:1/"}))

    with pytest.raises(ClientError, match=r"redirects to another address"):
        Waits().connection(peer.url, KEY).call_json(*GET)


def test_a_message_cannot_control_the_terminal(peer: Peer) -> None:
    peer.replies.append(Reply(400, {"error": "bad\x1b[2J\nnews\u202e", "field": "in\x07puts"}))

    with pytest.raises(ServiceRefused) as refused:
        Waits().connection(peer.url).call_json(*GET)

    assert str(refused.value) == "bad\\x1b[2J\\nnews\\u202e"
    assert refused.value.field == "in\\x07puts"


@pytest.mark.parametrize("status", [200, 404, 500])
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"text"', b"\xff", b"[" * 100_000])
def test_an_answer_that_is_not_the_services_is_refused(peer: Peer, status: int, body: bytes) -> None:
    peer.replies.append(Reply(status, body))

    with pytest.raises(ClientError, match=r"check ORCHESTRATOR_URL"):
        Waits().connection(peer.url).call_json(*GET)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "1" + "0" * 400])
def test_a_number_that_is_not_one_is_refused(peer: Peer, number: str) -> None:
    peer.replies.append(Reply(200, f'{{"cpu": {number}}}'.encode()))

    with pytest.raises(ClientError, match=r"check ORCHESTRATOR_URL"):
        Waits().connection(peer.url).call_json(*GET)


def test_an_argument_that_is_not_text_is_refused(peer: Peer) -> None:
    with pytest.raises(ClientError, match=r"^an argument is not valid UTF-8"):
        Waits().connection(peer.url).call("GET", "/v1/jobs", query={"image": "\udcff"})


def test_numbers_stay_as_they_are(peer: Peer) -> None:
    peer.replies.append(Reply(200, b'{"cpu": 0.5, "exitCode": -1, "large": 9007199254740993}'))

    assert Waits().connection(peer.url).call_json(*GET) == {"cpu": 0.5, "exitCode": -1, "large": 2**53 + 1}


def test_without_a_key_none_is_sent(peer: Peer) -> None:
    peer.replies.append(Reply(200))

    Waits().connection(peer.url, key_of({})).call_json(*GET)

    assert "Authorization" not in peer.requests[0][2]
