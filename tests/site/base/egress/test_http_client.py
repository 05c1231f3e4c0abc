"""The HTTP client for outgoing requests."""

import io
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_site.base.egress import allowed_addresses, guarded_connections, http_client
from orchestrator_site.base.intervals import EgressIntervals
from tests.helpers.receiver import Answer, Received, Receiver, certificate, tls_server
from tests.site.base.values.test_http_urls import PATHS, QUERIES

pytestmark = pytest.mark.stateless

TIMES: dict[str, Any] = {"connect_timeout": 5, "read_timeout": 10}
SECRET = "s3cr3t"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def egress_allow(settings: Any) -> Any:
    """Return a function that sets EGRESS_ALLOW."""

    def allow(*networks: str, hosts: frozenset[str] = frozenset()) -> None:
        settings.CONFIGURATION = replace(
            django_settings.CONFIGURATION,
            egress_networks=tuple(ip_network(network) for network in networks),
            egress_hosts=hosts,
        )

    allow("127.0.0.0/8", "::1/128")
    return allow


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Return a table of names and their addresses that replaces DNS."""
    table: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *args: Any, **options: Any) -> Any:
        if host not in table:
            return real(host, port, *args, **options)
        return [answer for address in table[host] for answer in real(address, port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return table


@pytest.fixture
def fresh_adapter() -> Iterator[None]:
    """Use an adapter with connections and certificates for this test only."""
    http_client._adapter.cache_clear()
    yield
    http_client._adapter.cache_clear()


def get(url: str, **options: Any) -> tuple[int, bytes]:
    with http_client.open(options.pop("method", "GET"), url, **(TIMES | options)) as response:
        return response.status_code, b"".join(http_client.chunks(response))


# -- addresses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"]
)
def test_public_addresses_are_always_allowed(address: str) -> None:
    assert allowed_addresses.is_allowed(ip_address(address), "example.com", (), frozenset())


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "192.0.0.8"),
        *("192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.88.99.1"),
        *(
            "::",
            "::1",
            "fe80::1",
            "fe80::1%1",
            "fc00::1",
            "ff02::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "64:ff9b:1::1",
            "::127.0.0.1",
        ),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::10.0.0.1", "2002:7f00:1::1", "2002:a9fe:a9fe::1"),
        "2001:0:7f00:1:0:0:f7f7:f7f7",  # Teredo: a private server
        "2001:0:808:808:0:0:80ff:fffe",  # Teredo: a private client (bits inverted)
    ],
)
def test_other_addresses_are_refused_unless_listed(address: str) -> None:
    assert not allowed_addresses.is_allowed(ip_address(address), "example.com", (), frozenset())


@given(st.ip_addresses(v=4))
def test_an_embedded_ipv4_address_is_treated_as_that_address(address: IPv4Address) -> None:
    # Given an IPv4 address, and IPv6 addresses that embed it
    number = int(address)
    embedding = [
        IPv6Address(0xFFFF << 32 | number),  # mapped
        IPv6Address(0x0064FF9B << 96 | number),  # NAT64
        IPv6Address(0x2002 << 112 | number << 80 | 1),  # 6to4
    ]

    # I expect the same answer for all of them, under any rules
    for networks in ((), (ip_network("10.0.0.0/8"),), (ip_network("0.0.0.0/0"),)):
        expected = allowed_addresses.is_allowed(address, "h", networks, frozenset())
        assert [allowed_addresses.is_allowed(address6, "h", networks, frozenset()) for address6 in embedding] == [expected] * 3


@given(st.ip_addresses())
def test_a_listed_network_allows_its_addresses(address: IPv4Address | IPv6Address) -> None:
    target = allowed_addresses.targets(address)
    networks = [ip_network(f"{item}/{item.max_prefixlen}") for item in target]
    assert allowed_addresses.is_allowed(address, "h", networks, frozenset())


def test_a_listed_name_allows_private_addresses_and_no_others() -> None:
    hosts = frozenset({"build.internal"})
    assert allowed_addresses.is_allowed(ip_address("10.1.2.3"), "Build.Internal.", (), hosts)
    assert not allowed_addresses.is_allowed(ip_address("10.1.2.3"), "other.internal", (), hosts)
    assert not allowed_addresses.is_allowed(ip_address("224.0.0.1"), "build.internal", (), hosts)
    assert not allowed_addresses.is_allowed(ip_address("0.0.0.0"), "build.internal", (), hosts)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "0"])
def test_every_spelling_of_loopback_is_refused(receiver: Receiver, egress_allow: Any, host: str) -> None:
    # Given that only public addresses are allowed
    egress_allow()

    # When loopback is requested by any name, I expect a refusal and no request
    with pytest.raises(http_client.EgressDenied, match="not in EGRESS_ALLOW"):
        get(f"http://{host}:{receiver.port}/?token={SECRET}")
    assert receiver.requests == []


def test_the_connection_goes_to_the_checked_address(receiver: Receiver, names: Any, egress_allow: Any) -> None:
    # Given a name with a forbidden address first and an allowed one after it
    names["hook.test"] = ["10.255.255.1", "127.0.0.1"]

    # When it is requested
    status, _ = get(f"http://hook.test:{receiver.port}/x")

    # I expect a connection to the allowed address only, with the host of the URL
    assert status == 200
    assert receiver.requests[0].headers["host"] == f"hook.test:{receiver.port}"


def test_a_reused_connection_is_checked_again(receiver: Receiver, names: Any, egress_allow: Any) -> None:
    # Given an allowed connection that is kept open
    names["hook.test"] = ["127.0.0.1"]
    url = f"http://hook.test:{receiver.port}/"
    get(url)

    # When the rules change
    egress_allow("10.0.0.0/8")

    # I expect a request on that connection to be refused
    with pytest.raises(http_client.EgressDenied):
        get(url)
    assert len(receiver.requests) == 1


def test_connections_are_reused(receiver: Receiver) -> None:
    for _ in range(3):
        get(receiver.url)
    assert len({received.peer for received in receiver.requests}) == 1


def test_an_idle_connection_is_not_reused(receiver: Receiver) -> None:
    # Given a connection that has been idle for longer than allowed
    intervals = EgressIntervals(reuse=0.05)
    get(receiver.url, intervals=intervals)
    time.sleep(2 * intervals.reuse)

    # When there is another request, I expect it on a new connection
    get(receiver.url, intervals=intervals)
    assert len({received.peer for received in receiver.requests}) == 2
    assert EgressIntervals().reuse == 2.0


def test_connections_of_simultaneous_requests_are_reused(receiver: Receiver, fresh_adapter: None) -> None:
    # Given a server that answers a certain number of requests at once
    http_client._adapter()  # otherwise each thread would make its own
    count = guarded_connections.MAX_IDLE_CONNECTIONS
    together = threading.Barrier(count, timeout=10)

    def respond(_: Received) -> Answer:
        together.wait()
        return Answer()

    receiver.respond = respond

    # When they are repeated, I expect them on the same connections
    get_reusing = partial(get, intervals=EgressIntervals(reuse=60))
    with ThreadPoolExecutor(count) as threads:
        for _ in range(3):
            assert list(threads.map(get_reusing, [receiver.url] * count)) == [(200, b"")] * count
    assert len({received.peer for received in receiver.requests}) == count


# -- requests --------------------------------------------------------------------------------------


def test_a_request_has_no_cookies_and_uses_no_proxy(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a proxy in the environment and a cookie from an earlier answer
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    receiver.will(Answer(headers={"Set-Cookie": "a=b"}))
    get(receiver.url)

    # When another request goes there
    get(f"{receiver.url}/a%20b?q=%2F#fragment", method="POST", headers={"X-A": "grüß", "user-agent": "me"}, body=b"body")

    # I expect neither in the request
    received = receiver.requests[1]
    assert (received.method, received.path, received.body) == ("POST", "/a%20b?q=%2F", b"body")
    assert received.headers["x-a"] == "grüß"  # as the server reads Latin-1
    assert received.headers["user-agent"] == "me"
    assert received.headers["accept-encoding"] == "identity"
    assert received.headers["content-length"] == "4"
    assert "cookie" not in received.headers


def test_userinfo_becomes_basic_authentication(receiver: Receiver) -> None:
    get(receiver.url.replace("://", "://us%65r:p%40ss%C3%BC@"))
    assert receiver.requests[0].headers["authorization"] == "Basic dXNlcjpwQHNzw7w="


def test_an_authorization_header_replaces_userinfo(receiver: Receiver) -> None:
    get(receiver.url.replace("://", "://user:password@"), headers={"authorization": "Bearer x"})
    assert receiver.requests[0].headers["authorization"] == "Bearer x"


@pytest.fixture(scope="module")
def recorder() -> Iterator[Receiver]:
    with Receiver() as recorder:
        yield recorder


@given(path=PATHS, query=QUERIES)
def test_path_and_query_are_sent_byte_for_byte(recorder: Receiver, path: str, query: str) -> None:
    # When any path and query are requested
    recorder.requests.clear()
    get(f"{recorder.url}{path}{query}#fragment")

    # I expect exactly these in the request line
    assert recorder.requests[0].target == (path or "/") + query


@given(st.text([*map(chr, range(0x20, 0x7F)), *map(chr, range(0x80, 0x100))]))
def test_header_values_are_sent_in_latin_1(recorder: Receiver, value: str) -> None:
    recorder.requests.clear()
    get(recorder.url, headers={"X-A": value})
    assert recorder.requests[0].headers["x-a"].strip(" ") == value.strip(" ")


@pytest.mark.parametrize("value", ["€", "漢", "\u0100", "\udce9"])
def test_header_values_beyond_latin_1_are_refused(receiver: Receiver, value: str) -> None:
    with pytest.raises(http_client.EgressDenied, match="the value of the header X-A contains a character outside Latin-1"):
        get(receiver.url, headers={"X-A": value})
    assert receiver.requests == []


@pytest.mark.parametrize(
    "headers",
    [{"X-A": "a\r\nX-B: b"}, {"X-A": "a\nb"}, {"X-A\r\nX-B": "a"}, {"X A": "a"}, {"": "a"}, {"X-A": "\0"}]
    + [{name: "1"} for name in ("Host", "content-length", "Transfer-Encoding", "Connection")],
)
def test_headers_that_change_the_framing_are_refused(receiver: Receiver, headers: dict[str, str]) -> None:
    with pytest.raises(http_client.EgressDenied):
        get(receiver.url, headers=headers)
    assert receiver.requests == []


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "ftp://h/", "http://", "http:///x", "//h/x", "http://[::1", "http://h:99999/", "", "http://h:0/"),
        *("http://☕.example/", "http://１２７.0.0.1/", "http://[fe80::1%25eth0]/", "http://h/ x", "http://h/\n"),
    ],
)
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(http_client.EgressDenied):
        get(url)
    with pytest.raises(http_client.EgressDenied):
        http_client.origin_of(url)


class Zeros(io.RawIOBase):
    """A body that is generated while it is read."""

    def __init__(self, size: int) -> None:
        self.left = self.size = size
        self.largest_read = 0

    def __len__(self) -> int:
        return self.size

    def read(self, size: int = -1) -> bytes:
        self.largest_read = max(self.largest_read, size)
        data = b"0" * min(size, self.left)
        self.left -= len(data)
        return data


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_a_body_is_streamed_with_its_length(receiver: Receiver, size: int) -> None:
    body = Zeros(size)
    get(receiver.url, method="PUT", body=body)
    assert receiver.requests[0].headers["content-length"] == str(size)
    assert "transfer-encoding" not in receiver.requests[0].headers
    assert len(receiver.requests[0].body) == size
    assert body.largest_read <= 65536


# -- answers ---------------------------------------------------------------------------------------


def test_redirects_are_not_followed(receiver: Receiver) -> None:
    # Given a redirect with a body that never ends
    receiver.will(Answer(302, {"Location": receiver.url + "/other"}, fault="endless"))

    # When it is the answer, I expect it unchanged, with nothing read ahead
    with http_client.open("GET", receiver.url, **TIMES) as response:
        assert response.status_code == 302
        assert len(next(http_client.chunks(response, 1000))) <= 1000
    assert [received.path for received in receiver.requests] == ["/"]


def test_a_content_encoding_is_not_decoded(receiver: Receiver) -> None:
    receiver.will(Answer(headers={"Content-Encoding": "gzip"}, body=b"not even gzip"))
    assert get(receiver.url) == (200, b"not even gzip")


@pytest.mark.parametrize("fault", ["half", "half_headers", "reset", "garbage"])
def test_the_error_of_a_broken_answer_contains_no_secret(receiver: Receiver, fault: Any) -> None:
    receiver.will(Answer(fault=fault))
    with pytest.raises(http_client.EgressFailed) as failure:
        get(receiver.url.replace("://", f"://user:{SECRET}@") + f"/?token={SECRET}", headers={"X-Key": SECRET})
    assert not failure.value.timed_out
    assert SECRET not in str(failure.value)
    assert "127.0.0.1" in str(failure.value)
    assert str(failure.value).isprintable()


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
    with pytest.raises(http_client.EgressFailed, match="the connection ended within the headers of the answer") as failure:
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
    with pytest.raises(http_client.EgressFailed, match="the server sent more than 10 interim answers") as failure:
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


@pytest.mark.parametrize("line", ["no header", ": x", "X Y: z", "\r", "X-A: a\r\r\nX-B: \r b", "\x00"])
def test_an_invalid_header_line_does_not_hide_others(receiver: Receiver, line: str) -> None:
    # Given a truncated answer with such a line before its Content-Length
    receiver.will(Answer(fault="raw", body=f"HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: 5\r\n\r\nbody".encode()))

    # When it is read, I expect a failure
    with pytest.raises(http_client.EgressFailed):
        get(receiver.url)


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
    with pytest.raises(http_client.EgressFailed, match="could not be resolved within") as failure:
        get("http://slow.test/", connect_timeout=0.1)
    released.set()
    assert failure.value.timed_out


# -- TLS -------------------------------------------------------------------------------------------


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: Any, fresh_adapter: None) -> Iterator[Receiver]:
    """A server with a certificate for hook.test that is trusted like a public one."""
    path = certificate(tmp_path, "hook.test")
    names["hook.test"] = names["other.test"] = ["127.0.0.1"]
    monkeypatch.setattr(guarded_connections.certifi, "where", lambda: str(path))
    with Receiver(tls=tls_server(path)) as receiver:
        yield receiver


def test_the_certificate_must_match_the_host_of_the_url(secure: Receiver) -> None:
    # Given a server whose certificate is for hook.test
    # When it is requested by that name, I expect an answer
    assert get(f"https://hook.test:{secure.port}/") == (200, b"")
    assert get(f"https://hook.test:{secure.port}/") == (200, b"")
    assert len({received.peer for received in secure.requests}) == 1

    # When it is requested by another name or its address, I expect a failure
    for host in ("other.test", "127.0.0.1"):
        with pytest.raises(http_client.EgressFailed, match="certificate verify failed"):
            get(f"https://{host}:{secure.port}/")


def test_a_private_authority_is_trusted_next_to_public_ones(tmp_path: Path, settings: Any, names: Any, secure: Receiver) -> None:
    # Given a server with a certificate of a public authority, and one with that of a private authority
    authority = certificate(tmp_path, "authority.test")
    names["inside.test"] = ["127.0.0.1"]
    with Receiver(tls=tls_server(certificate(tmp_path, "inside.test", authority))) as inside:
        # When CA_BUNDLE is not set, I expect the private one to be refused
        with pytest.raises(http_client.EgressFailed, match="certificate verify failed"):
            get(f"https://inside.test:{inside.port}/")
        assert inside.requests == []

        # When it names the private authority, I expect an answer from both
        settings.CONFIGURATION = replace(django_settings.CONFIGURATION, ca_bundle=authority)
        http_client._adapter.cache_clear()
        assert get(f"https://inside.test:{inside.port}/") == (200, b"")
        assert get(f"https://hook.test:{secure.port}/") == (200, b"")


def test_a_missing_bundle_is_a_failure(tmp_path: Path, settings: Any, receiver: Receiver, fresh_adapter: None) -> None:
    settings.CONFIGURATION = replace(django_settings.CONFIGURATION, ca_bundle=tmp_path / "gone.pem")
    with pytest.raises(http_client.EgressFailed, match="CA_BUNDLE cannot be read: No such file"):
        get(receiver.url)


def test_the_total_timeout_applies_to_tls(secure: Receiver) -> None:
    secure.will(Answer(fault="drip"))
    with pytest.raises(http_client.EgressFailed) as failure:
        get(f"https://hook.test:{secure.port}/", total_timeout=0.5)
    assert failure.value.timed_out


def test_a_hanging_handshake_ends_with_the_connect_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(http_client.EgressFailed) as failure:
        get(f"https://127.0.0.1:{server.getsockname()[1]}/", connect_timeout=0.3)
    assert failure.value.timed_out


def test_a_name_has_one_encoding_for_dns_tls_and_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: Any, egress_allow: Any, fresh_adapter: None
) -> None:
    # Given a server with a certificate for a non-ASCII name, which EGRESS_ALLOW lists
    encoded = "xn--bcher-kva.test"
    names[encoded] = ["127.0.0.1"]
    egress_allow(hosts=frozenset({encoded}))
    path = certificate(tmp_path, encoded)
    monkeypatch.setattr(guarded_connections.certifi, "where", lambda: str(path))
    asked: list[str] = []
    tls = tls_server(path)
    tls.sni_callback = lambda _, name, __: asked.append(name)
    with Receiver(tls=tls) as receiver:
        # When it is requested by that name, I expect an answer
        assert get(f"https://BÜCHER.test:{receiver.port}/") == (200, b"")

    # And the encoded name everywhere
    assert asked == [encoded]
    assert receiver.requests[0].headers["host"] == f"{encoded}:{receiver.port}"


@pytest.mark.parametrize(
    ("host", "sent"),
    [("127.1", "127.0.0.1"), ("0x7f000001", "127.0.0.1"), ("0177.0.0.1", "127.0.0.1"), ("LocalHost", "localhost")],
)
def test_the_host_header_has_the_usual_spelling(receiver: Receiver, host: str, sent: str) -> None:
    get(f"http://{host}:{receiver.port}/")
    assert receiver.requests[0].headers["host"] == f"{sent}:{receiver.port}"


# -- redacted URLs and origins ---------------------------------------------------------------------------------


def test_origins_have_one_spelling() -> None:
    assert http_client.origin_of("HTTPS://User:pw@Example.COM./a?b#c") == "https://example.com:443"
    assert http_client.origin_of("http://[::1]:8080") == "http://[::1]:8080"
    assert (
        http_client.origin_of("http://BÜCHER.example/")
        == http_client.origin_of("http://xn--bcher-kva.example")
        == "http://xn--bcher-kva.example:80"
    )


@given(st.text(alphabet=st.characters(codec="ascii", categories=("L", "N")), min_size=1))
def test_a_redacted_url_contains_no_secret(word: str) -> None:
    secret = f"<{word}>"
    assert http_client.redact(f"https://{secret}:{secret}@h:1/path?{secret}#{secret}") == "https://h:1/path"
