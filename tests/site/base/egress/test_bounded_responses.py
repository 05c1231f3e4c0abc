"""Answers of servers that are broken or hostile."""

import socket
from contextlib import suppress
from http.client import HTTPException

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_site.base.egress import http_client
from orchestrator_site.base.egress.bounded_responses import BoundedResponse
from tests.helpers.receiver import Answer, Receiver
from tests.site.base.egress.sending import get

pytestmark = pytest.mark.stateless


@pytest.mark.parametrize(
    "head",
    [
        *(b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX-Half", b"HTTP/1.1 204 No Content\r\nX-A: b\r\n"),
        *(b"HTTP/1.1 200 OK\r\nX-A: b\r\n\r", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"),
    ],
)
def test_incomplete_headers_are_a_failure(receiver: Receiver, head: bytes) -> None:
    # Given a server that answers 200 without the empty line after its headers
    receiver.will(Answer(fault="raw", body=head))

    # When its answer is read, I expect a failure
    with pytest.raises(http_client.EgressFailed, match="the connection ended in the headers of the response") as failure:
        get(receiver.url)
    assert not failure.value.timed_out


@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize(
    "head", ["HTTP/1.1 200 OK{0}X-A: b{0}{0}", "HTTP/1.0 200 OK{0}{0}", "HTTP/1.1 100 Continue{0}{0}HTTP/1.1 200{0}{0}"]
)
def test_an_answer_may_end_with_its_connection(receiver: Receiver, head: str, end: str) -> None:
    receiver.will(Answer(fault="raw", body=head.format(end).encode() + b"body"))
    assert get(receiver.url) == (200, b"body")


@pytest.mark.parametrize(
    "headers",
    [
        b"".join(b"X-%d: %d\r\n" % (number, number) for number in range(150)),
        b"X-A: " + b"a" * 60_000 + b"\r\n",
        b"X-A: b\r\n" * 7000,
        b"X-A:\r\n" + b" b\r\n" * 15_000,
    ],
    ids=["150", "a long one", "thousands", "a folded one"],
)
def test_an_answer_may_have_many_headers(receiver: Receiver, headers: bytes) -> None:
    receiver.will(Answer(fault="raw", body=b"HTTP/1.1 200 OK\r\n" + headers + b"Content-Length: 4\r\n\r\nbodyandmore"))
    assert get(receiver.url) == (200, b"body")


def test_two_lengths_of_a_body_are_a_failure(receiver: Receiver) -> None:
    receiver.will(Answer(fault="raw", body=b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody!"))
    with pytest.raises(http_client.EgressFailed, match="more than one length"):
        get(receiver.url)


def test_an_answer_may_have_a_long_reason(receiver: Receiver) -> None:
    receiver.will(Answer(fault="raw", body=b"HTTP/1.1 200 " + b"x" * 60_000 + b"\r\nContent-Length: 4\r\n\r\nbody"))
    assert get(receiver.url) == (200, b"body")


@pytest.mark.parametrize(
    "head",
    [
        *(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 10_000 + b"\r\n", b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 65_536 + b"\r\n\r\n"),
        *(b"HTTP/1.1 200 " + b"x" * 65_536 + b"\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n" + b"Link: a\r\n" * 10_000),
    ],
    ids=["many", "a long one", "a long reason", "in an interim answer"],
)
def test_more_than_64_kib_of_headers_is_a_failure(receiver: Receiver, head: bytes) -> None:
    receiver.will(Answer(fault="raw", body=head))
    with pytest.raises(http_client.EgressFailed, match="the server sent more than 65536 bytes of headers") as failure:
        get(receiver.url)
    assert not failure.value.timed_out


@pytest.mark.parametrize("number", [1, 10])
@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"])
def test_interim_answers_are_skipped(receiver: Receiver, interim: bytes, number: int) -> None:
    receiver.will(Answer(fault="raw", body=interim * number + b"HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\nbody"))
    assert get(receiver.url) == (201, b"body")


def test_endless_interim_answers_are_a_failure(receiver: Receiver) -> None:
    receiver.will(Answer(fault="endless_interim"))
    with pytest.raises(http_client.EgressFailed, match="the server sent more than 10 interim responses") as failure:
        get(receiver.url)
    assert not failure.value.timed_out


def test_endless_trailers_are_a_failure(receiver: Receiver) -> None:
    receiver.will(Answer(fault="endless_trailers"))
    with pytest.raises(http_client.EgressFailed, match="the server sent more than 65536 bytes of headers") as failure:
        get(receiver.url)
    assert not failure.value.timed_out


def test_an_endless_chunk_size_is_a_failure(receiver: Receiver) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    receiver.will(Answer(fault="raw", body=head + b"1;" + b"x" * 1_000_000))
    with pytest.raises(http_client.EgressFailed, match="the server sent more than 65536 bytes of headers"):
        get(receiver.url)


@pytest.mark.parametrize("size", ["-1", "-5", "+5", "0x5", "5_0", "five", "", "5 5", "f" * 16])
def test_a_chunk_size_must_be_hexadecimal(receiver: Receiver, size: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\n"
    receiver.will(Answer(fault="raw", body=head.encode() + b"hello\r\n0\r\n\r\n"))
    with pytest.raises(http_client.EgressFailed, match="the server sent a chunk with an invalid size"):
        get(receiver.url)


def test_a_body_may_have_any_number_of_chunks(receiver: Receiver) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    receiver.will(Answer(fault="raw", body=head + b"1;extension\r\nx\r\n" * 10_000 + b"0\r\nX-Trailer: a\r\n\r\n"))
    assert get(receiver.url) == (200, b"x" * 10_000)


@pytest.mark.parametrize("coding", ["gzip", "gzip, chunked", "chunked, gzip", "chunked\r\nTransfer-Encoding: gzip"])
def test_other_transfer_codings_are_a_failure(receiver: Receiver, coding: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n"
    receiver.will(Answer(fault="raw", body=head.encode() + b"4\r\nbody\r\n0\r\n\r\n"))
    with pytest.raises(http_client.EgressFailed, match="transfer coding"):
        get(receiver.url)


@pytest.mark.parametrize("coding", ["chunked", "Chunked ", "\r\n chunked", "chunked\r\nTransfer-Encoding: chunked"])
def test_chunks_may_be_announced_in_several_ways(receiver: Receiver, coding: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n"
    receiver.will(Answer(fault="raw", body=head.encode() + b"4\r\nbody\r\n0\r\n\r\n"))
    assert get(receiver.url) == (200, b"body")


@pytest.mark.parametrize("rest", [b"", b"0\r\n\r\n"])
def test_a_status_without_a_body_may_announce_chunks(receiver: Receiver, rest: bytes) -> None:
    receiver.will(Answer(fault="raw", body=b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n" + rest))
    assert get(receiver.url) == (204, b"")


@pytest.mark.parametrize("line", ["no header", ": x", "X Y: z", "\r", "X-A: a\r\r\nX-B: \r b", "\x00"])
def test_an_invalid_header_line_does_not_hide_others(receiver: Receiver, line: str) -> None:
    # Given a truncated answer with such a line before its Content-Length
    receiver.will(Answer(fault="raw", body=f"HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: 5\r\n\r\nbody".encode()))

    # When it is read, I expect a failure
    with pytest.raises(http_client.EgressFailed):
        get(receiver.url)


PIECES = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 103 x\r\n", b"HTTP/1.1 204 \r\n", b"HTTP/0.9 2\r\n", b"HTTP/1.1 999999999\r\n"),
        *(b"\r\n", b"\n"),
        *(b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Content-Length: \xb2\r\n"),
        b"Content-Length: " + b"9" * 5000 + b"\r\n",
        *(
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n",
            b"Content-Encoding: gzip\r\n",
            b" folded\r\n",
            b"\0: \xff\r\n",
        ),
        *(b"5\r\nhello\r\n", b"0\r\n", b"f\r\n", b"fffffffffffffff\r\n", b"-1\r\n", b'5;x="\r\n', b"\x1f\x8b\x08\0", b"hello"),
    ]
)


@given(st.lists(PIECES | st.binary(max_size=20), max_size=12).map(b"".join))
def test_whatever_a_server_sends_is_an_answer_or_a_failure(data: bytes) -> None:
    # Given a server that sends any bytes and closes the connection
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)

        # When they are read as an answer, I expect no other error than those that the client translates, and no more bytes
        with suppress(OSError, HTTPException), BoundedResponse(ours, method="GET") as answer:
            answer.begin()
            received = b"".join(iter(lambda: answer.read1(1000), b""))
            assert len(received) <= len(data)
            assert 100 <= answer.status <= 999
