"""Outgoing requests: connections, and what is sent."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_site.base.egress import guarded_connections, http_client
from tests.helpers.receiver import Answer, Receiver
from tests.site.base.egress.sending import SECRET, TIMES, Zeros, get
from tests.site.base.values.test_http_urls import PATHS, QUERIES

pytestmark = pytest.mark.stateless


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "0"])
def test_every_spelling_of_loopback_is_refused(receiver: Receiver, egress_allow: Any, host: str) -> None:
    # Given that only public addresses are allowed
    egress_allow()

    # When loopback is requested by any name, I expect a refusal and no request
    with pytest.raises(http_client.EgressDenied, match="not in EGRESS_ALLOW"):
        get(f"http://{host}:{receiver.port}/?token={SECRET}")
    assert receiver.requests == []


def test_a_name_with_a_final_dot_is_checked_like_any_other(receiver: Receiver, names: Any, egress_allow: Any) -> None:
    # Given that only public addresses are allowed, and a resolver that knows names with a final dot (RFC 1034, 3.1)
    egress_allow()
    names["localhost."] = ["127.0.0.1"]

    # When loopback is requested by such a name, I expect a refusal and no request
    with pytest.raises(http_client.EgressDenied, match="not in EGRESS_ALLOW"):
        get(f"http://localhost.:{receiver.port}/")
    assert receiver.requests == []


def test_the_connection_goes_to_the_checked_address(receiver: Receiver, names: Any, egress_allow: Any) -> None:
    # Given a name with a forbidden address first and an allowed one after it
    names["hook.test"] = ["10.255.255.1", "127.0.0.1"]

    # When it is requested
    status, _ = get(f"http://hook.test:{receiver.port}/x")

    # I expect a connection to the allowed address only, with the host of the URL
    assert status == 200
    assert receiver.requests[0].headers["host"] == f"hook.test:{receiver.port}"


def test_a_refusal_does_not_tell_the_address_of_an_internal_name(
    names: Any, egress_allow: Any, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a name with an internal address
    names["inside.test"] = ["10.1.2.3"]

    # When it is requested, I expect the address in the log only
    with pytest.raises(http_client.EgressDenied) as refused, caplog.at_level(logging.INFO):
        get("http://inside.test/")
    assert "10.1.2.3" not in str(refused.value)
    assert "10.1.2.3" in caplog.text


# -- requests --------------------------------------------------------------------------------------


def test_a_request_has_no_cookies_and_uses_no_proxy(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a proxy in the environment and a cookie from an earlier answer
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    receiver.will(Answer(headers={"Set-Cookie": "a=b"}))
    get(receiver.url)
    assert receiver.requests[0].headers["user-agent"] == "Orchestrator/1"

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


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_a_body_is_streamed_with_its_length(receiver: Receiver, size: int) -> None:
    get(receiver.url, method="PUT", body=Zeros(size))
    assert receiver.requests[0].headers["content-length"] == str(size)
    assert "transfer-encoding" not in receiver.requests[0].headers
    assert len(receiver.requests[0].body) == size


@pytest.mark.parametrize(
    ("body", "sent"), [((b"a", memoryview(b"b"), b"c"), [b"head a", b"b", b"c"]), ((b"body",), [b"head body"]), ((), [b"head "])]
)
def test_the_head_is_sent_together_with_the_first_part_of_the_body(body: tuple[bytes, ...], sent: list[bytes]) -> None:
    assert list(guarded_connections.with_head(b"head ", body)) == sent


# -- answers ---------------------------------------------------------------------------------------


def test_redirects_are_not_followed(receiver: Receiver) -> None:
    # Given a redirect with a body that never ends
    receiver.will(Answer(302, {"Location": receiver.url + "/other"}, fault="endless"))

    # When it is the answer, I expect it unchanged, with nothing read ahead
    with http_client.open("GET", receiver.url, **TIMES) as response:
        assert response.status == 302
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
    "answer", [b"220 mail.internal ESMTP\r\n", b"-ERR wrong number of arguments\r\n", b"HTTP/9.9 mail.internal\r\n\r\n"]
)
def test_what_is_not_http_is_not_quoted(receiver: Receiver, answer: bytes) -> None:
    # Given an internal host that speaks another protocol
    receiver.will(Answer(body=answer, fault="raw"))

    # When it is requested, I expect an error that repeats nothing of its answer
    with pytest.raises(http_client.EgressFailed) as failure:
        get(receiver.url)
    assert str(failure.value) == "the connection to 127.0.0.1 failed: its answer is not valid HTTP"


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
