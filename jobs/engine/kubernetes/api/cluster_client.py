"""Requests to the API server, as JSON.

The SDK provides the transport (TLS, credentials and their renewal). Its models are not used: they cost milliseconds of CPU time
for each object.
"""

import copy
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

import urllib3
from kubernetes.client import ApiClient
from urllib3.connection import HTTPConnection

from jobs.engine.answer_stream import keep_alive_options
from jobs.engine.breakable_sockets import POOLS_BY_SCHEME, EngineCall
from jobs.engine.kubernetes.api.credentials import Connection
from jobs.errors import ContainerConflict, ContainerNotFound, EngineRefused, EngineSilent, EngineUnavailable, JobError
from jobs.interrupt import Interrupt
from orchestrator_site.base.intervals import EngineIntervals

logger = logging.getLogger(__name__)

JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"

_MAX_IDLE_CONNECTIONS: Final = 64
_MAX_MESSAGE_LENGTH: Final = 1000
_MAX_ERROR_BYTES: Final = 64 * 1024

TRANSPORT_ERRORS: Final = (urllib3.exceptions.HTTPError, OSError)  # sending, or reading a body


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was read to its end. `data` is its JSON; `message` is the error text of a failed answer."""

    status: int
    data: Any
    message: str
    clock: datetime | None  # of the API server

    @property
    def failed(self) -> bool:
        return self.status >= 400

    def error(self) -> JobError:
        """Return what a failed answer means for calls that do not give its status a special meaning."""
        match self.status:
            case 404:
                return ContainerNotFound("the cluster has no such object")
            case 409:
                return ContainerConflict(self.message)
            case 400 | 422:
                logger.warning("the cluster refused a request: %s", self.message)
                return EngineRefused("the cluster refused the request; the service's log has the details")
            case _:  # not authorized, above a quota, too many requests, or in trouble
                return EngineUnavailable(f"the cluster does not do this now: {self.message}")


class ClusterClient:
    """A thread-safe client for one namespace. Creating one does not connect.

    All calls raise `EngineUnavailable` if the API server does not answer, and `Interrupted` if `interrupt` is set.
    """

    def __init__(self, connection: Connection, intervals: EngineIntervals) -> None:
        connection.configuration.connection_pool_maxsize = _MAX_IDLE_CONNECTIONS
        connection.configuration.socket_options = [*HTTPConnection.default_socket_options, *keep_alive_options(intervals)]
        self._api = ApiClient(connection.configuration)
        self._api.rest_client.pool_manager.pool_classes_by_scheme = POOLS_BY_SCHEME
        self.max_silence: float | None = None
        self.namespace = connection.namespace
        self.own_namespace = connection.own_namespace
        self.intervals = intervals
        self.interrupt = Interrupt()

    def bound(self, interrupt: Interrupt, max_silence: float | None = None) -> "ClusterClient":
        """Return a client over the same connections; see `Engine.bound`."""
        bound = copy.copy(self)
        bound.interrupt = interrupt
        bound.max_silence = max_silence
        return bound

    def core(self, *segments: str) -> str:
        """Return the path of objects of the core group in the namespace: `core("pods", name, "log")`."""
        return core_path(self.namespace, *segments)

    def jobs(self, *segments: str) -> str:
        """Return the path of Jobs in the namespace."""
        return "/".join(("/apis/batch/v1/namespaces", _quoted(self.namespace), "jobs", *map(_quoted, segments)))

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Return the JSON of a successful answer. Takes the options of `exchange`; raises `Answer.error` otherwise."""
        answer = self.exchange(method, path, **options)
        if answer.failed:
            raise answer.error()
        return answer.data

    def exchange(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
    ) -> Answer:
        """Send a request and return the answer, whatever its status. `body` is sent as JSON."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        with self._request(method, path, params, headers, data, self.intervals.short_call) as response:
            return _read(response)

    @contextmanager
    def stream(
        self, path: str, *, params: Mapping[str, str], may_be_silent: bool = False
    ) -> Iterator[urllib3.BaseHTTPResponse | Answer]:
        """Yield a successful answer to a GET whose body is still unread (see `ByteStream`), or a failed answer.

        Leaving the context closes the connection. With `may_be_silent` the answer may begin at any time later.
        """
        with self._request("GET", path, params, {}, None, None if may_be_silent else self.intervals.short_call) as response:
            yield _read(response) if response.status >= 400 else response

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        headers: dict[str, str],
        data: bytes | None,
        timeout: float | None,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        self.interrupt.check()
        url = f"{self._api.configuration.host}{path}{'?' + urlencode(params) if params else ''}"
        call = EngineCall()
        with self.interrupt.waking(call.end):
            try:
                self._api.update_params_for_auth(headers, [], ["BearerToken"])
                with call.current():
                    response = self._api.rest_client.pool_manager.request(
                        method,
                        url,
                        body=data,
                        headers={**self._api.default_headers, **headers},
                        timeout=self._timeout(timeout),
                        retries=False,
                        redirect=False,
                        preload_content=False,
                    )
            except TRANSPORT_ERRORS as error:
                self.interrupt.check()  # a call that the interrupt ended looks like a broken connection
                raise _unavailable(error) from error
            try:
                yield response
            except TRANSPORT_ERRORS as error:
                self.interrupt.check()
                raise _unavailable(error) from error
            finally:
                if response.isclosed():  # read to its end
                    response.release_conn()
                else:
                    response.close()

    def _timeout(self, seconds: float | None) -> urllib3.Timeout:
        connect = self.intervals.connect
        if self.max_silence is not None:
            connect, seconds = min(connect, self.max_silence), None if seconds is None else min(seconds, self.max_silence)
        return urllib3.Timeout(connect=connect, read=seconds)


def core_path(namespace: str, *segments: str) -> str:
    """Return the path of objects of the core group in a namespace."""
    return "/".join(("/api/v1/namespaces", *map(_quoted, (namespace, *segments))))


def _quoted(segment: str) -> str:
    return quote(segment, safe="")


def _read(response: urllib3.BaseHTTPResponse) -> Answer:
    content = response.read() if response.status < 400 else response.read(_MAX_ERROR_BYTES)
    try:
        data = json.loads(content) if content.strip() else None
    except ValueError:
        data = None
    message = ""
    if response.status >= 400:
        said = data.get("message") if isinstance(data, dict) else content.decode(errors="replace")
        message = str(said or f"the API server answered {response.status}").strip()[:_MAX_MESSAGE_LENGTH]
    return Answer(response.status, data, message, _clock(response.headers.get("Date")))


def _clock(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text).astimezone(UTC) if text else None
    except ValueError:
        return None


def _unavailable(error: Exception) -> EngineUnavailable:
    """Return what one of `TRANSPORT_ERRORS` means. Its text is for the log: it may contain addresses."""
    kind = EngineSilent if isinstance(error, urllib3.exceptions.TimeoutError | TimeoutError) else EngineUnavailable
    return kind(f"the cluster does not answer: {error}"[:_MAX_MESSAGE_LENGTH])
