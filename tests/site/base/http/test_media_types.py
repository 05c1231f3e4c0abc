"""Media types of requests, which name encodings, and may be very long or invalid."""

import encodings
import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator_site.base.http.media_types import Request, parse_media_type
from orchestrator_site.wsgi import application
from tests.helpers.factories import make_job

JSON = "application/json"


@pytest.mark.parametrize(
    ("header", "type_", "parameters"),
    [
        ("application/json", JSON, {}),
        ("  Application/JSON ;Charset=UTF-8", JSON, {"charset": "UTF-8"}),
        ('a/b; charset="utf-8";q=0.5', "a/b", {"charset": "utf-8", "q": "0.5"}),
        ("a/b;;\t; c=d ;", "a/b", {"c": "d"}),
        ('a/b; c="d;e=f,g"', "a/b", {"c": "d;e=f,g"}),
        ("*/*; q=0", "*/*", {"q": "0"}),
        ("application/vnd.x+json; profile=1", "application/vnd.x+json", {"profile": "1"}),
        *(
            (header, "", {})
            for header in ("", ";", "a", "a/", "/b", "a/b/c", "a/b c", "a/b; c", "a/b; c=", "a/b; =d", 'a/b; c="d')
        ),
        *(
            (header, "", {})
            for header in ("a/b; c*=utf-8''d", "a/b; c*0=d", "a/b; c=d\xe9", "a/b, c/d", "a/b\n", "a/b; c=" + "d" * 1000)
        ),
    ],
)
def test_a_media_type_is_read_by_the_rules_of_http(header: str, type_: str, parameters: dict[str, str]) -> None:
    assert parse_media_type(header) == (type_, parameters)


@given(
    st.text(st.characters(max_codepoint=255))
    | st.lists(st.sampled_from(["a/b", ";", "a", "=", '"', " ", "*", "\\", ","])).map("".join)
)
@settings(max_examples=50)
def test_any_text_is_read(header: str) -> None:
    type_, parameters = parse_media_type(header)
    assert type_ or not parameters


def call(path: str = "/v1/jobs", method: str = "POST", body: bytes = b"{}", **headers: str) -> str:
    """Send a request to the WSGI application; return the status."""
    statuses: list[str] = []
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "wsgi.url_scheme": "http",
        **headers,
    }
    application(environ, lambda status, *_: statuses.append(status))
    return statuses[0][:3]


@pytest.mark.parametrize(
    "parameter", ["a*=nope''%41", "charset*=nope''%41", "a*=idna''%ff", "a*0*=nope''b; a*1=c", "charset=idna"]
)
def test_an_encoding_that_a_client_names_is_not_looked_up(parameter: str) -> None:
    # When a body has a type with such a parameter, I expect an answer, and no encoding that Python keeps
    before = len(encodings._cache)  # type: ignore[attr-defined]
    assert call(CONTENT_TYPE=f"{JSON}; {parameter}") == "415"
    assert call("/livez", "GET", CONTENT_TYPE=f"{JSON}; {parameter}") == "200"
    assert len(encodings._cache) == before  # type: ignore[attr-defined]


@pytest.mark.django_db(transaction=True)  # requests close the connection of this thread
def test_nor_is_one_in_the_accept_header() -> None:
    make_job(id="a")
    before = len(encodings._cache)  # type: ignore[attr-defined]
    accept = f"{JSON}; a*=unknown''%41, a/b; a*=idna''%ff"
    for path, method, status in (("/v1/jobs/a/logs", "GET", "200"), ("/v1/docs", "GET", "200"), ("/v1/jobs/a", "DELETE", "204")):
        assert call(path, method, HTTP_ACCEPT=accept) == status
    assert len(encodings._cache) == before  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("accept", "preferred"),
    [
        (None, "text/plain"),
        ("*/*", "text/plain"),
        ("application/*;q=0.5, text/plain;q=0.4", JSON),
        (f"{JSON}; a*=nope''%41, text/event-stream", "text/event-stream"),
        (f"{JSON};q=0, text/plain", "text/plain"),
        (f"{JSON}, " + "x/y, " * 200, "text/plain"),
        ("nonsense", None),
    ],
)
def test_the_client_selects_a_type(accept: str | None, preferred: str | None) -> None:
    environ = {"REQUEST_METHOD": "GET", "wsgi.input": io.BytesIO()} | ({} if accept is None else {"HTTP_ACCEPT": accept})
    assert Request(environ).get_preferred_type(["text/plain", JSON, "text/event-stream"]) == preferred


@pytest.mark.django_db
def test_the_parts_of_an_upload_are_not_read() -> None:
    # Given a client with a token of its own, which needs no login
    before = len(encodings._cache)  # type: ignore[attr-defined]
    part = b"--x\r\nContent-Disposition: form-data; name*=unknown''%41\r\n\r\nb\r\n--x--\r\n"
    headers = {
        "CONTENT_TYPE": "multipart/form-data; boundary=x",
        "HTTP_HOST": "localhost",
        "HTTP_COOKIE": f"csrftoken={'a' * 32}",
    }

    # When it sends parts that name an unknown encoding, I expect that it is refused, and that the encoding is not looked up
    assert call("/admin/login/", body=part, **headers) == "403"
    assert len(encodings._cache) == before  # type: ignore[attr-defined]
