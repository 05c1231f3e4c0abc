"""One attempt to deliver, against real servers: it always ends in time, with an outcome that contains no secret."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest

from callbacks.delivery import delivery_attempt
from callbacks.rules.outcome import Outcome
from orchestrator_site.base.egress import connection_pool, guarded_connections, http_client
from orchestrator_site.base.intervals import DeliveryIntervals, EgressIntervals
from tests.helpers.certificates import certificate, tls_server
from tests.helpers.receiver import Answer, Receiver

pytestmark = pytest.mark.stateless

SECRET = "s3cr3t"
BODY = b'{"id": "1"}'
GIB = 1024**3
PATIENT = DeliveryIntervals(answer=25.0)
IMPATIENT = DeliveryIntervals(connect=0.3, answer=0.3)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class StoppedClock(datetime):
    """A `datetime` whose `now` is always `NOW`."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls.fromtimestamp(NOW.timestamp(), tz)


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve names under .invalid to nothing, and all others to this machine."""
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *args: Any, **options: Any) -> Any:
        if host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real("127.0.0.1", port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture(autouse=True)
def patient_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reuse idle connections however slow the machine is."""
    monkeypatch.setattr(http_client, "open", partial(http_client.open, intervals=EgressIntervals(reuse=60)))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def send(
    origin: str, headers: Mapping[str, str] | None = None, body: bytes = BODY, intervals: DeliveryIntervals = PATIENT
) -> Outcome:
    """Send an event to this scheme, host and port, with secrets in the URL."""
    url = origin.replace("://", f"://user:{SECRET}@") + f"/hook?token={SECRET}"
    return delivery_attempt.send(url, headers or {"Content-Type": "application/json"}, body, intervals)


def assert_no_answer(outcome: Outcome) -> None:
    """Check that the outcome says why there was no answer, without a secret."""
    assert (outcome.status, outcome.answer, outcome.retry_after) == (None, "", 0.0)
    assert not outcome.accepted
    assert outcome.error.isprintable()
    assert 0 < len(outcome.error) <= 512
    for hidden in (SECRET, "token", "user:"):
        assert hidden not in outcome.error


# -- the request -----------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", BODY, bytes(300_000)], ids=["empty", "short", "long"])
def test_a_request_has_a_length_and_a_user_agent(receiver: Receiver, body: bytes) -> None:
    assert send(receiver.url, {"X-A": "b"}, body).accepted
    (received,) = receiver.requests
    assert (received.method, received.path, received.body) == ("POST", f"/hook?token={SECRET}", body)
    assert received.headers["content-length"] == str(len(body))
    assert "transfer-encoding" not in received.headers
    assert received.headers["user-agent"].startswith("Orchestrator/")
    assert received.headers["x-a"] == "b"


@pytest.mark.parametrize("target", ["/a%2fb/%7Ex?sig=a%2bb%3d%7e", "/bucket/a/../b?x=1", "/a/./b?x", "//x", "/?"])
def test_path_and_query_are_sent_unchanged(receiver: Receiver, target: str) -> None:
    delivery_attempt.send(f"{receiver.url}{target}#fragment", {}, BODY)
    assert [received.target for received in receiver.requests] == [target]


@pytest.mark.parametrize("status", [200, 204, 302, 410, 500])
def test_a_connection_is_reused(receiver: Receiver, status: int) -> None:
    # Given an answer of usual length, good or bad
    receiver.will(Answer(status, body=b"" if status == 204 else b"x" * 60_000))

    # When two events are sent, I expect one connection
    assert send(receiver.url).status == status
    assert send(receiver.url).status == 200
    assert len({received.peer for received in receiver.requests}) == 1


@pytest.mark.parametrize("fault", ["half", "half_headers", "endless", "endless_chunks", "garbage", "reset"])
def test_a_connection_with_an_unread_answer_is_not_reused(receiver: Receiver, fault: Any) -> None:
    receiver.will(Answer(fault=fault))
    send(receiver.url)
    assert send(receiver.url).answer == ""
    assert len({received.peer for received in receiver.requests}) == 2


# -- whole answers ---------------------------------------------------------------------------------


def test_an_outcome_has_the_status_and_start_of_the_answer(receiver: Receiver) -> None:
    receiver.will(Answer(202, body="tak\0 grüß".encode() + b"\xff"))
    outcome = send(receiver.url)
    assert outcome.accepted
    assert (outcome.status, outcome.error, outcome.answer) == (202, "", "tak\ufffd grüß\ufffd")


def test_an_answer_may_have_no_body(receiver: Receiver) -> None:
    receiver.will(Answer(fault="raw", body=b"HTTP/1.1 204 No Content\r\n\r\n"))
    outcome = send(receiver.url)
    assert outcome.accepted
    assert (outcome.status, outcome.error, outcome.answer) == (204, "", "")


@pytest.mark.parametrize("before", [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_interim_answers_are_skipped(receiver: Receiver, before: bytes) -> None:
    receiver.will(Answer(fault="raw", body=2 * before + b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"))
    assert send(receiver.url).status == 410


@pytest.mark.parametrize("status", [200, 410])
def test_an_answer_may_have_many_headers(receiver: Receiver, status: int) -> None:
    receiver.will(Answer(status, {f"X-{number}": "x" for number in range(150)}))
    assert send(receiver.url).status == status


def test_a_server_may_answer_with_http_1_0(receiver: Receiver) -> None:
    receiver.will(Answer(fault="raw", body=b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\nwell"))
    outcome = send(receiver.url)
    assert outcome.accepted
    assert outcome.answer == "well"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    receiver.will(Answer(status, {"Location": f"{receiver.url}/other?{SECRET}"}))
    outcome = send(receiver.url)
    assert not outcome.accepted
    assert (outcome.status, outcome.error) == (status, f"answered {status}")
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_honored(receiver: Receiver, status: int) -> None:
    receiver.will(Answer(status, {"Retry-After": "120"}))
    outcome = send(receiver.url)
    assert (outcome.status, outcome.error, outcome.retry_after) == (status, f"answered {status}", 120)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_as_a_date_is_honored(receiver: Receiver, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a destination that asks to wait for an hour by its own clock, while ours has stopped
    monkeypatch.setattr(delivery_attempt, "datetime", StoppedClock)
    receiver.will(Answer(status, {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)}))

    # When an event is sent to it, I expect one hour
    outcome = send(receiver.url)
    assert (outcome.status, outcome.error) == (status, f"answered {status}")
    assert 3500 < outcome.retry_after <= 3600
    assert outcome.time == NOW


@pytest.mark.parametrize("status", [200, 410, 415, 500])
@pytest.mark.parametrize("asked", ["120", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_retry_after_of_other_answers_is_ignored(receiver: Receiver, status: int, asked: str) -> None:
    receiver.will(Answer(status, {"Retry-After": asked}))
    outcome = send(receiver.url)
    assert (outcome.status, outcome.retry_after) == (status, 0.0)
    assert outcome.error == ("" if status == 200 else f"answered {status}")


# -- endless answers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, {"Content-Length": str(GIB)}, fault="endless"),
        Answer(500, fault="endless"),
        Answer(500, fault="endless_chunks"),
    ],
    ids=["a GiB", "until the end of the connection", "chunks"],
)
def test_only_the_beginning_of_a_long_answer_is_read(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an answer that is a GiB long, or longer
    read: list[int] = []
    chunks = http_client.chunks

    def counted(response: Any) -> Iterator[bytes]:
        for chunk in chunks(response):
            read.append(len(chunk))
            yield chunk

    monkeypatch.setattr(http_client, "chunks", counted)
    with Receiver() as receiver:
        receiver.will(answer)

        # When an event is sent there
        outcome = send(receiver.url)

    # I expect its status and beginning after 64 KiB were read, apart from what the system buffered
    assert (outcome.status, outcome.answer) == (500, "x" * 2048)
    assert 65536 <= sum(read) < 2 * 65536
    assert receiver.streamed < GIB / 16


@pytest.mark.parametrize(
    "head",
    [b"X-A: b\r\n" * 10_000 + b"\r\n", b"X-A: " + b"b" * 1_000_000],
    ids=["many", "long"],
)
def test_too_large_headers_are_not_an_answer(receiver: Receiver, head: bytes) -> None:
    receiver.will(Answer(fault="raw", body=b"HTTP/1.1 200 OK\r\n" + head))
    assert_no_answer(send(receiver.url))


@pytest.mark.parametrize("fault", ["endless_interim", "endless_trailers"])
def test_endless_interim_answers_or_trailers_are_not_an_answer(receiver: Receiver, fault: Any) -> None:
    receiver.will(Answer(fault=fault))
    assert_no_answer(send(receiver.url))


@pytest.mark.parametrize("fault", ["hang", "drip", "drip_headers"])
def test_an_attempt_ends_in_time_whatever_the_host_does(receiver: Receiver, fault: Any) -> None:
    receiver.will(Answer(fault=fault))
    assert_no_answer(send(receiver.url, intervals=IMPATIENT))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_attempt_ends_in_time_if_the_host_never_accepts(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert_no_answer(send(f"{scheme}://127.0.0.1:{server.getsockname()[1]}", intervals=IMPATIENT))


# -- no answer at all ------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["half", "half_headers", "garbage", "reset"])
def test_a_broken_answer_is_not_an_answer(receiver: Receiver, fault: Any) -> None:
    receiver.will(Answer(fault=fault))
    assert_no_answer(send(receiver.url))
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\n", b"HTTP/2.0 200 OK\r\n\r\n", b"SSH-2.0-OpenSSH\r\n"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123456789",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfive\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_an_incomplete_or_invalid_answer_is_not_an_answer(receiver: Receiver, answer: bytes) -> None:
    receiver.will(Answer(fault="raw", body=answer))
    assert_no_answer(send(receiver.url))


def test_a_refused_connection_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    outcome = send(f"http://127.0.0.1:{port}")
    assert_no_answer(outcome)
    assert "connection refused" in outcome.error


def test_what_the_service_cannot_do_is_not_the_host_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise http_client.ServiceFailed("not known")

    monkeypatch.setattr(guarded_connections, "check_new_address", fail)

    outcome = send("http://127.0.0.1:8000/")

    assert (outcome.error, outcome.by_service) == ("not known", True)


def test_an_unknown_host_name_is_reported() -> None:
    outcome = send("http://hook.invalid")
    assert_no_answer(outcome)
    assert outcome.error == "hook.invalid cannot be resolved: Name or service not known"


@pytest.mark.parametrize("url", ["ftp://hook.test", "http://hook.test:99999", "http://[::1", "http://"])
def test_an_invalid_url_is_reported(url: str) -> None:
    assert_no_answer(send(url))


# -- TLS -------------------------------------------------------------------------------------------


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A server with a certificate for hook.test that clients trust."""
    path = certificate(tmp_path, "hook.test")
    monkeypatch.setattr(connection_pool.certifi, "where", lambda: str(path))
    http_client._pool.cache_clear()
    with Receiver(tls=tls_server(path)) as receiver:
        yield receiver
    http_client._pool.cache_clear()


def test_a_certificate_is_checked_against_the_host_name(secure: Receiver) -> None:
    # When an event is sent to the name in the certificate, I expect an answer
    assert send(f"https://hook.test:{secure.port}").accepted

    # When it is sent to another name, I expect nothing to be sent
    outcome = send(f"https://other.test:{secure.port}")
    assert_no_answer(outcome)
    assert "certificate" in outcome.error
    assert len(secure.requests) == 1


def test_a_self_signed_certificate_is_refused(tmp_path: Path) -> None:
    with Receiver(tls=tls_server(certificate(tmp_path, "hook.test"))) as receiver:
        outcome = send(f"https://hook.test:{receiver.port}")
    assert_no_answer(outcome)
    assert "certificate" in outcome.error
    assert receiver.requests == []


def test_a_server_without_tls_is_reported() -> None:
    # Given a server that answers anything in plain HTTP
    def serve() -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):  # the client hangs up
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            while connection.recv(65536):  # closed with something unread it would be reset
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()

        # When an event is sent there over TLS, I expect no answer
        outcome = send(f"https://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert_no_answer(outcome)
    assert "SSL" in outcome.error
