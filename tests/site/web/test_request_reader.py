"""Requests are parsed the same from any packets, and as gunicorn parses them."""

from dataclasses import dataclass
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.parser import RequestParser
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_site.base.http.body_limit import MAX_BODY_BYTES
from orchestrator_site.web.refusals import Refusal
from orchestrator_site.web.request_reader import MAX_HEAD_BYTES, RequestReader, Stage

pytestmark = pytest.mark.stateless
CONFIG = Config()  # made once, as in a web process: it takes longer than to read a request
CLIENT = ("127.0.0.1", 1234)
HOST = b"Host: x\r\n"


@dataclass(frozen=True)
class Seen:
    method: str
    uri: str
    body: bytes


def new_reader() -> RequestReader:
    return RequestReader(CONFIG, CLIENT)


def read_all(packets: list[bytes]) -> tuple[list[Seen], bool]:
    """Return the requests in these packets, and whether something was refused after them."""
    reader, seen = new_reader(), []
    try:
        for packet in packets:
            reader.feed(packet)
            while request := reader.next_request():
                seen.append(Seen(request.method, request.uri, request.body.read()))
    except Refusal:
        return seen, True
    return seen, False


def read_by_gunicorn(data: bytes) -> list[Seen]:
    """Return the requests that gunicorn's parser finds before the first that is refused or incomplete."""
    seen: list[Seen] = []
    try:
        for request in RequestParser(CONFIG, iter([data]), CLIENT):
            body = request.body.read()
            length = dict(request.headers).get("CONTENT-LENGTH")
            if length is not None and len(body) < int(length):
                break
            seen.append(Seen(request.method, request.uri, body))
            request.should_close = lambda: False  # read the following requests, too
    except (ParseException, NoMoreData):
        pass
    return seen


def refused(data: bytes) -> Refusal:
    reader = new_reader()
    reader.feed(data)
    with pytest.raises(Refusal) as caught:
        reader.next_request()
    return caught.value


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    chunks = draw(st.lists(st.binary(min_size=1, max_size=30), max_size=4))
    extension = draw(st.sampled_from([b"", b";a=b", b' ; a="b;c"']))
    trailer = draw(st.sampled_from([b"", b"X-Sum: 1\r\n"]))
    return b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks) + b"0\r\n" + trailer + b"\r\n"


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    method = draw(st.sampled_from([b"GET", b"POST", b"HEAD", b"DELETE"]))
    path = draw(st.sampled_from([b"/", b"/v1/jobs?x=1", b"//a", b"http://x/y", b"/%0d%0a"]))
    head = (
        b"%s %s HTTP/1.1\r\n" % (method, path) + HOST + draw(st.sampled_from([b"", b"X: \xff\r\n", b"Expect: 100-continue\r\n"]))
    )
    match draw(st.sampled_from(["none", "length", "chunked"])):
        case "length":
            body = draw(st.binary(max_size=60))
            return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        case "chunked":
            return head + b"Transfer-Encoding: chunked\r\n\r\n" + draw(chunked())
    return head + b"\r\n"


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Generate requests with some bytes replaced, removed or inserted."""
    data = bytearray(b"".join(draw(st.lists(requests(), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        piece = draw(
            st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b":", b"0", b"\x00", b"Content-Length: 3\r\n"])
        )
        data[at : at + draw(st.integers(0, 2))] = piece
    return bytes(data)


@st.composite
def packets_of(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> list[bytes]:
    data = draw(source)
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(sent=st.lists(requests(), min_size=1, max_size=4), cuts=st.data())
def test_every_request_is_read_from_any_packets(sent: list[bytes], cuts: st.DataObject) -> None:
    packets = cuts.draw(packets_of(st.just(b"".join(sent))))
    seen, refused = read_all(packets)
    assert not refused
    assert len(seen) == len(sent)
    assert seen == read_by_gunicorn(b"".join(sent))


@given(packets_of(damaged()))
def test_packets_do_not_change_what_is_read_or_refused(packets: list[bytes]) -> None:
    data = b"".join(packets)
    assert read_all(packets) == read_all([data]) == read_all([bytes([byte]) for byte in data])


@given(damaged())
def test_requests_are_read_as_gunicorn_reads_them(data: bytes) -> None:
    # Requests can be smuggled if two parsers disagree
    seen, _ = read_all([data])
    assert seen == read_by_gunicorn(data)[: len(seen)]


GET = b"GET / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"\r\n\r\n" + GET + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.0\n\n", 400),
        (GET + HOST + b"X: a\r\n b\r\n\r\n", 400),
        (GET + b"Host : x\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
        (b"GET / FOO/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET /" + b"x" * (MAX_HEAD_BYTES + 1), 414),
        (GET + HOST + b"X: " + b"x" * 9000 + b"\r\n\r\n", 431),
        (GET + HOST + b"X: x\r\n" * 200 + b"\r\n", 431),
        (GET + HOST + b"X: x\r\n" * MAX_HEAD_BYTES, 431),
        (GET + HOST + b"Expect: tea\r\n\r\n", 417),
        (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        (POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
        (POST + b"Content-Length: +3\r\n\r\nabc", 400),
        (POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 2000, 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 3\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: x\r\n" * 100_000, 431),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000, 400),
        (POST + b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), 413),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % (MAX_BODY_BYTES + 1), 413),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n%x\r\n" % MAX_BODY_BYTES, 413),
    ],
)
def test_an_invalid_or_too_large_request_is_refused(data: bytes, status: int) -> None:
    assert refused(data).status == status


@pytest.mark.parametrize(
    "head",
    [
        GET,
        GET + b"Host:\r\n",
        GET + HOST + HOST,
        GET + b"Host: a b\r\n",
        GET + b"Host: user@x\r\n",
        GET + b"Host: x:y\r\n",
        GET + b"Host: x/y\r\n",
        GET + b"Host: [::1\r\n",
        GET + b"Host: \xe2\x98\x95\r\n",
        b"GET / HTTP/1.0\r\nHost: a b\r\n",
        b"GET http://user@x/ HTTP/1.1\r\n" + HOST,
        b"GET http:///y HTTP/1.1\r\n" + HOST,
        b"GET ftp://x/y HTTP/1.1\r\n" + HOST,
        b"GET http://x/ HTTP/1.1\r\n",
    ],
)
def test_a_missing_or_invalid_host_is_refused(head: bytes) -> None:
    assert refused(head + b"\r\n").status == 400


@pytest.mark.parametrize("host", ["x", "x:80", "x:", "my_service:8080", "127.0.0.1", "[::1]:80", "xn--53h.example"])
def test_any_valid_host_is_accepted(host: str) -> None:
    reader = new_reader()
    reader.feed(GET + f"Host: {host}\r\n\r\n".encode())
    assert dict(reader.next_request().headers)["HOST"] == host


def test_the_host_of_an_absolute_target_replaces_the_header() -> None:
    reader = new_reader()
    reader.feed(b"GET http://y:81/z HTTP/1.1\r\n" + HOST + b"\r\n")
    request = reader.next_request()
    assert (dict(request.headers)["HOST"], request.path) == ("y:81", "/z")


def test_http_1_0_needs_no_host() -> None:
    reader = new_reader()
    reader.feed(b"GET / HTTP/1.0\r\n\r\n")
    assert reader.next_request().version == (1, 0)


def test_a_body_of_the_maximum_size_is_read() -> None:
    body = b"x" * MAX_BODY_BYTES
    seen, refused = read_all([POST + b"Content-Length: %d\r\n\r\n" % len(body), body])
    assert (len(seen[0].body), refused) == (MAX_BODY_BYTES, False)


@pytest.mark.parametrize("framing", [b"Content-Length: 3", b"Transfer-Encoding: chunked"])
def test_100_continue_is_expected_once(framing: bytes) -> None:
    reader = new_reader()
    reader.feed(POST + framing + b"\r\nExpect: 100-continue\r\n\r\n")
    assert reader.next_request() is None
    assert (reader.take_continue(), reader.take_continue()) == (True, False)


def test_100_continue_is_not_expected_once_the_body_arrives() -> None:
    reader = new_reader()
    reader.feed(POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\na")
    assert reader.next_request() is None
    assert not reader.take_continue()


@pytest.mark.parametrize(
    ("data", "stage"),
    [
        (b"", Stage.NOTHING),
        (b"\r\n", Stage.NOTHING),
        (GET + HOST + b"\r\n", Stage.NOTHING),
        (b"G", Stage.HEAD),
        (POST + b"Content-Length: 3\r\n\r\nab", Stage.BODY),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", Stage.BODY),
    ],
)
def test_a_client_may_stop_between_requests_only(data: bytes, stage: Stage) -> None:
    reader = new_reader()
    reader.feed(data)
    reader.next_request()
    assert reader.stage is stage
    if stage is Stage.NOTHING:
        reader.end()
    else:
        with pytest.raises(Refusal):
            reader.end()


@given(st.integers(1, 4000))
def test_memory_grows_with_what_was_sent_only(size: int) -> None:
    reader: Any = new_reader()
    reader.feed(POST + b"Content-Length: 5000\r\n\r\n" + b"x" * size)
    assert reader.next_request() is None
    assert reader.held == size
