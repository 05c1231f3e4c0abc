"""Requests to the service, for a client that outlives its restarts."""

import json
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import BadStatusLine, RemoteDisconnected
from typing import Any, Final
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, ProxyError, SSLError

from orchestrator_site.base.intervals import ClientIntervals
from orchestrator_site.client.errors import ClientError, ServiceAway, ServiceRefused
from orchestrator_site.client.service.address import connection_pool
from orchestrator_site.client.texts import shown

_MAX_ANSWER: Final = 64 * 1024 * 1024  # bytes: no answer of the service is that long
_LARGEST: Final = 2**63
_NOT_DONE: Final = frozenset({408, 429})  # the service has not got the whole request, or has not begun with it
_TEMPORARY: Final = _NOT_DONE | {502, 503, 504}


class RefusedAfterRetry(ServiceRefused):
    """The service refused a repeated request of which an earlier attempt may have had its effect."""


class Connection:
    """A connection to the service at a URL.

    Requests are repeated while the service is away, once it has been reached at all: it may only be restarting. `on_wait` is
    called with the reason once each time that it goes away, `on_return` when it is back.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        on_wait: Callable[[str], None] = lambda _: None,
        on_return: Callable[[], None] = lambda: None,
        sleep: Callable[[float], None] = time.sleep,
        intervals: ClientIntervals = ClientIntervals(),
    ) -> None:
        self.url: Final = url
        self._on_wait = on_wait
        self._on_return = on_return
        self._sleep = sleep
        self._intervals = intervals
        self._has_answered = False
        self._headers = {"User-Agent": "orchestrator-run"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._pool = connection_pool(url)

    def call_json(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: bytes | None = None, wait: float = 0.0
    ) -> dict[str, Any]:
        """Send a request as `call` does; return the JSON object that the service answers."""
        value = _parsed(self.call(method, path, query=query, body=body, wait=wait))
        if not isinstance(value, dict):
            raise self.not_the_service()
        return value

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        accept: str = "application/json",
        wait: float = 0.0,
    ) -> bytes:
        """Send a request until it is answered; return the body of the answer.

        `wait` is how long the request asks the service to wait. Raise `ServiceRefused` if the answer is an error, `ServiceAway`
        if none comes for too long, and `RefusedAfterRetry` if an earlier attempt of this call may have had its effect.
        """
        try:
            url = self.url + path + (f"?{urlencode(query)}" if query else "")
        except UnicodeEncodeError as error:
            raise ClientError("an argument is not valid UTF-8, which a request must be") from error
        headers = self._headers | {"Accept": accept} | ({"Content-Type": "application/json"} if body is not None else {})
        outage = _Outage(self._on_wait, self._on_return, self._sleep, self._intervals)
        while True:
            try:
                status, content, retry_after = self._send(method, url, headers, body, self._intervals.service_answer + wait)
            except HTTPError as error:
                self._give_up_at_once(error)
                outage.wait(f"cannot reach the service at {self.url}", _reason(error), may_be_done=_was_sent(error))
                continue
            self._has_answered = True
            if status not in _TEMPORARY:
                break
            reason = shown(_sentence(content) or "it is not available")
            outage.wait(
                f"the service at {self.url} answers {status}", reason, may_be_done=status not in _NOT_DONE, least=retry_after
            )
        outage.end()
        self._check(status, content, outage.may_be_done)
        return content

    def not_the_service(self) -> ClientError:
        """Return the error for an answer that does not have the form of the service's answers."""
        return ClientError(f"{self.url}: its answer is not Orchestrator's: check ORCHESTRATOR_URL")

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, seconds: float
    ) -> tuple[int, bytes, float]:
        """Send a request once; return the status, the body and the seconds of `Retry-After`."""
        response = self._pool.request(
            method,
            url,
            body=body,
            headers=headers,
            timeout=urllib3.Timeout(connect=self._intervals.service_connect, read=seconds),
            retries=False,  # and no redirect
            preload_content=False,
            decode_content=False,
        )
        try:
            content = b""
            # urllib3 notices that a body is shorter than announced only when it reads beyond its end.
            while piece := response.read(_MAX_ANSWER + 1 - len(content)):
                content += piece
                if len(content) > _MAX_ANSWER:
                    raise self.not_the_service()
            response.release_conn()
        except BaseException:
            response.close()
            raise
        retry_after = response.headers.get("Retry-After", "")
        return response.status, content, float(retry_after) if re.fullmatch(r"[0-9]{1,9}", retry_after, re.ASCII) else 0.0

    def _give_up_at_once(self, error: HTTPError) -> None:
        """Raise `ClientError` if it makes no sense to repeat the request."""
        cause = getattr(error, "reason", error)
        if isinstance(error, SSLError) or isinstance(cause, ssl.SSLError):
            raise ClientError(f"cannot reach the service at {self.url} safely ({_reason(error)})") from error
        if not self._has_answered and any(_is_not_http(cause) for cause in _causes(error)):
            raise self.not_the_service() from error
        if not self._has_answered and not _was_sent(error):
            raise ClientError(
                f"cannot reach the service at {self.url} ({_reason(error)}): is it running, and is ORCHESTRATOR_URL right?"
            ) from error

    def _check(self, status: int, content: bytes, may_be_done: bool) -> None:
        """Raise `ServiceRefused` if the answer is an error."""
        if 200 <= status < 300:
            return
        if 300 <= status < 400:
            raise ClientError(f"{self.url} redirects to another address: set ORCHESTRATOR_URL to the service's own")
        if status == 401:
            if "Authorization" in self._headers:
                raise ServiceRefused("the service does not know the API key in ORCHESTRATOR_API_KEY", status, None)
            raise ServiceRefused("the service requires an API key: set ORCHESTRATOR_API_KEY", status, None)
        answer, sentence = _parsed(content), _sentence(content)
        if sentence is None:
            raise ServiceRefused(
                f"{self.url} answers {status}, and not as Orchestrator does: check ORCHESTRATOR_URL", status, None
            )
        kind = RefusedAfterRetry if may_be_done else ServiceRefused
        raise kind(shown(sentence), status, shown(answer["field"]) if isinstance(answer.get("field"), str) else None)


class _Outage:
    """The time in which the attempts of one request fail."""

    def __init__(
        self,
        on_wait: Callable[[str], None],
        on_return: Callable[[], None],
        sleep: Callable[[float], None],
        intervals: ClientIntervals,
    ) -> None:
        self.may_be_done = False
        self._on_wait = on_wait
        self._on_return = on_return
        self._sleep = sleep
        self._intervals = intervals
        self._began_at: float | None = None
        self._is_reported = False
        self._pause = intervals.service_retry

    def wait(self, fault: str, reason: str, *, may_be_done: bool, least: float = 0.0) -> None:
        """Wait at least `least` seconds before the next attempt. Raise `ServiceAway` if there should not be another."""
        self.may_be_done = self.may_be_done or may_be_done
        now = time.monotonic()
        if self._began_at is None:
            self._began_at = now
        pause = max(self._pause, least)
        lasts = now + pause - self._began_at
        if lasts > self._intervals.service_away:
            raise ServiceAway(f"{fault} ({reason}): giving up", may_be_done=self.may_be_done)
        if lasts >= self._intervals.service_blip and not self._is_reported:
            self._is_reported = True
            self._on_wait(reason)
        self._sleep(pause)
        self._pause = min(2 * self._pause, self._intervals.service_retry_max)

    def end(self) -> None:
        if self._is_reported:
            self._on_return()


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content, parse_int=_number, parse_float=_number, parse_constant=_number)
    except (ValueError, RecursionError):
        return None


def _number(text: str) -> int | float:
    """Return a number. Raise `ValueError` for NaN and for what does not fit in 64 bits, with which nothing can be calculated."""
    number = float(text)
    if not abs(number) < _LARGEST:
        raise ValueError
    return int(text) if text.lstrip("-").isdigit() else number


def _sentence(content: bytes) -> str | None:
    """Return the sentence of an error of the service."""
    answer = _parsed(content)
    sentence = answer.get("error") if isinstance(answer, dict) else None
    return sentence if isinstance(sentence, str) else None


def _was_sent(error: HTTPError) -> bool:
    """Return whether the service may have got the request."""
    return not isinstance(error, ConnectTimeoutError | ProxyError)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what has led to it."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _is_not_http(error: BaseException) -> bool:
    """Return whether the answer was none of HTTP, in contrast to none at all."""
    return isinstance(error, BadStatusLine) and not isinstance(error, RemoteDisconnected)


def _reason(error: BaseException) -> str:
    """Return why a request failed, in a few words."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "no answer in time"
    return "the connection was closed"
