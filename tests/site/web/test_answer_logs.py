"""Lines that are logged while an answer is produced name what its request is about, whichever thread produces it."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator_site.web.wsgi_answer import LOG_FIELDS_KEY, TURN_BYTES
from tests.helpers.service_log import service_log
from tests.helpers.waiting import wait_for
from tests.site.web.clients import GET, TOO_LONG
from tests.site.web.web_servers import serving

pytestmark = pytest.mark.stateless

logger = logging.getLogger("jobs.test")


class Chatty:
    """An application that logs each of its turns, and its end."""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> "Chatty":
        environ[LOG_FIELDS_KEY] = {"request_id": f"id of {environ['PATH_INFO']}", "job": "a"}
        start_response("200 OK", [])
        return self

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(3):
            logger.info("a turn")
            yield b"x" * (TURN_BYTES + 1)

    def close(self) -> None:
        logger.info("the end")


def test_all_turns_of_an_answer_log_the_fields_of_its_request(caplog: pytest.LogCaptureFixture) -> None:
    # When an answer takes several turns, and then another one is produced
    with service_log(caplog) as log, serving(Chatty()) as web:
        web.exchange(GET)
        web.exchange(GET.replace(b"GET / ", b"GET /b "))
        wait_for(lambda: len(log.about("the end")) == 2)

    # I expect each line to have the fields of its own request
    assert [line["request_id"] for line in log.about("a turn")] == ["id of /"] * 3 + ["id of /b"] * 3
    assert [line["request_id"] for line in log.about("the end")] == ["id of /", "id of /b"]
    assert {line["job"] for line in log.of(logger.name)} == {"a"}


@pytest.mark.parametrize(
    ("request_bytes", "given", "status"),
    [
        (b"GARBAGE\r\n\r\n", None, 400),
        (TOO_LONG, None, 413),
        (TOO_LONG.replace(b"\r\n\r\n", b"\r\nX-Request-Id: r-1\r\n\r\n"), "r-1", 413),
        (TOO_LONG.replace(b"\r\n\r\n", b"\r\nX-Request-Id: \x1b[31m\r\n\r\n"), None, 400),
    ],
)
def test_a_refused_request_has_a_line_and_an_id(
    caplog: pytest.LogCaptureFixture, request_bytes: bytes, given: str | None, status: int
) -> None:
    # When the web server refuses a request itself
    with service_log(caplog) as log, serving(Chatty()) as web:
        answer = web.exchange(request_bytes)

    # I expect a line with the id of the answer, which the client has chosen if it may
    (line,) = log.about("a request was refused")
    assert (line["status"], line["reason"], line["request_id"]) == (status, answer.error, answer.headers["X-Request-Id"])
    assert given in (None, line["request_id"])


def test_a_request_that_fails_has_an_id(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: object, __: object) -> Any:
        raise ValueError("a bug")

    with service_log(caplog) as log, serving(fail) as web:
        answer = web.exchange(GET.replace(b"\r\n\r\n", b"\r\nX-Request-Id: r-1\r\n\r\n"))

    (line,) = log.about("a request failed")
    assert (answer.status, answer.headers["X-Request-Id"], line["request_id"]) == (500, "r-1", "r-1")
