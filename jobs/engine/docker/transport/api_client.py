"""A client of one engine's HTTP API.

docker-py provides the transport (unix socket, TCP with TLS) and the registry credentials. Its calls are not used: they
mix the two streams of a log, keep a connection when reading stops early, and take a time-out for the end of a log.
"""

import copy
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import requests
from docker import APIClient
from docker.errors import DockerException
from docker.utils import kwargs_from_env, parse_host

from jobs.engine.breakable_sockets import EngineCall
from jobs.engine.docker.transport.adapters import TcpAdapter, UnixAdapter
from jobs.engine.docker.transport.engine_answers import TRANSPORT_ERRORS, EngineAnswer, engine_unavailable, read_answer
from jobs.errors import EngineRefused, EngineUnavailable
from jobs.interrupt import Interrupt
from orchestrator_site.base.intervals import EngineIntervals

_MAX_IDLE_CONNECTIONS: Final = 256  # each running job has a log follower and a waiter; docker-py keeps 10
_FRAME_HEADER_BYTES: Final = 8  # before what a process prints
_INITIAL_API_VERSION: Final = "1.41"  # until the engine has been asked for its own
_PODMAN: Final = "Podman Engine"  # its name among the components of `GET /version`
_PODMAN_REFUSED: Final = (
    "DOCKER_HOST points to Podman, which is not supported: among other differences, it does not isolate jobs from one another "
    "on their network; use a Docker engine"
)


def quoted(name: str) -> str:
    """Return a name as one segment of a URL path."""
    return quote(name, safe="")


@dataclass(slots=True)
class _SharedState:
    """State that all bound copies of a client share."""

    version: str = ""  # of the engine's API; empty until it was asked for


class EngineClient:
    """A thread-safe client that connects, and asks for the engine's API version, at its first call.

    All calls raise `EngineUnavailable` if the engine does not answer, and `Interrupted` if `interrupt` is set.
    """

    def __init__(self, host: str, intervals: EngineIntervals, *, keep_open: bool = True) -> None:
        """Prepare a client without connecting.

        `host` is as in `DOCKER_HOST`, empty for the usual socket; TLS is as in `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH`.
        Without `keep_open` each call opens a connection of its own. Raise `EngineRefused` if the host or the TLS files
        are not usable.
        """
        try:
            self._session = _session(host, int(intervals.connect))
        except DockerException as error:
            raise EngineRefused(f"DOCKER_HOST cannot be used: {error}") from error
        self._session.headers["Connection"] = "keep-alive" if keep_open else "close"
        self._shared = _SharedState()
        self._max_silence = float("inf")  # seconds
        self.intervals = intervals
        self.interrupt = Interrupt()

    def bound(self, interrupt: Interrupt, max_silence: float | None = None) -> "EngineClient":
        """Return a client over the same connections; see `Engine.bound`."""
        bound = copy.copy(self)
        bound.interrupt = interrupt
        bound._max_silence = float("inf") if max_silence is None else max_silence
        return bound

    @property
    def api_version(self) -> tuple[int, int]:
        """The engine's API version. The first access asks the engine for it, and raises what a call raises."""
        major, _, minor = self._version().partition(".")
        return int(major), int(minor)

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Return the JSON of a successful answer. Takes the options of `exchange`; raises `EngineAnswer.error` otherwise."""
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
        timeout: float | None = None,
    ) -> EngineAnswer:
        """Send a request and return the answer, whatever its status.

        `body` is sent as JSON. `timeout` is the number of seconds without a byte, by default that of a short call.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        with self._send(method, path, params=params, data=data, headers=headers, timeout=timeout) as response:
            return read_answer(response)

    def upload(self, path: str, *, params: Mapping[str, str], chunks: Iterable[bytes], method: str = "PUT") -> EngineAnswer:
        """Send a tar archive of unknown length. Errors that `chunks` raises are passed on unchanged.

        They end the archive early, and the engine is heard before they are raised: it unpacks nothing more after its answer,
        whereas newer ones may unpack an archive whose connection broke after the next one.
        """
        failures: list[Exception] = []

        def until_failure() -> Iterator[bytes]:
            try:
                yield from chunks
            except Exception as error:
                failures.append(error)

        headers = {"Content-Type": "application/x-tar"}
        timeout = self.intervals.long_call
        with self._send(method, path, params=params, data=until_failure(), headers=headers, timeout=timeout) as response:
            answer = read_answer(response)
        if failures:
            raise failures[0]
        return answer

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Iterator[requests.Response | EngineAnswer]:
        """Yield a successful answer whose body is still unread, or a failed answer. Leaving the context closes the connection.

        `timeout` limits the seconds until the first byte of the body, by default to that of a short call.
        """
        with self._send(method, path, params=params, headers=headers or {}, timeout=timeout) as response:
            yield read_answer(response) if response.status_code >= 400 else response

    def ask(self, path: str, question: bytes, *, params: Mapping[str, str], timeout: float) -> bytes:
        """Write `question` to the standard input of a process, and return what it answers: as many bytes, or fewer at its end.

        `path` and `params` attach to a container without a terminal. `timeout` is in seconds.
        """
        with self.stream("POST", path, params=params, timeout=timeout) as response:
            if isinstance(response, EngineAnswer):
                raise response.error()
            reply: Any = response.raw._fp  # the http.client.HTTPResponse; urllib3 has no public way to the socket
            try:
                reply.fp.raw._sock.sendall(question)
                return bytes(response.raw.read(_FRAME_HEADER_BYTES + len(question))[_FRAME_HEADER_BYTES:])
            except TRANSPORT_ERRORS as error:
                raise engine_unavailable(error) from error

    def head(self, path: str, *, params: Mapping[str, str]) -> tuple[int, Mapping[str, str]]:
        """Return the status and the headers of the answer to a HEAD request."""
        with self._send("HEAD", path, params=params, headers={}) as response:
            return response.status_code, response.headers

    def _send(
        self, method: str, path: str, *, timeout: float | None = None, **options: Any
    ) -> AbstractContextManager[requests.Response]:
        timeout = self.intervals.short_call if timeout is None else timeout
        return self._request(method, f"/v{self._version()}{path}", timeout=timeout, **options)

    def _version(self) -> str:
        if not self._shared.version:
            self._shared.version = self._ask_version()
        return self._shared.version

    def _ask_version(self) -> str:
        with self._request("GET", "/version", params=None, headers={}, timeout=self.intervals.connect) as response:
            answer = read_answer(response)
        if answer.failed:
            raise EngineUnavailable(answer.message)
        about = answer.data if isinstance(answer.data, dict) else {}
        if any(component.get("Name") == _PODMAN for component in about.get("Components") or []):
            raise EngineRefused(_PODMAN_REFUSED)
        version = str(about.get("ApiVersion"))
        if not re.fullmatch(r"\d+\.\d+", version, re.ASCII):
            raise EngineUnavailable("the engine does not report its API version")
        return version

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | bytes] | None,
        headers: Mapping[str, str],
        timeout: float,
        data: bytes | Iterable[bytes] | None = None,
    ) -> Iterator[requests.Response]:
        self.interrupt.check()
        # While a body is sent the socket has the connect time-out: a busy disk of the engine must not end an upload.
        connect = timeout if data is not None else self.intervals.connect
        call = EngineCall()
        with self.interrupt.waking(call.end):
            try:
                with call.current():
                    response = self._session.request(
                        method,
                        self._session.base_url + path,
                        params=params,
                        data=data,
                        headers={"Accept-Encoding": "identity", **headers},
                        timeout=(min(connect, self._max_silence), min(timeout, self._max_silence)),
                        stream=True,
                        allow_redirects=False,
                    )
            except TRANSPORT_ERRORS as error:
                self.interrupt.check()  # a call that the interrupt ended looks like a broken connection
                raise engine_unavailable(error) from error
            try:
                yield response
            except EngineUnavailable:
                self.interrupt.check()
                raise
            finally:
                response.close()


def _session(host: str, connect_timeout: int) -> APIClient:
    """Return docker-py's session, which has not connected yet. Raise `DockerException`."""
    options = kwargs_from_env({**os.environ, "DOCKER_HOST": host})
    address = str(parse_host(host, tls=bool(options.get("tls"))))
    session = APIClient(version=_INITIAL_API_VERSION, timeout=connect_timeout, **options)
    session.trust_env = False  # REQUESTS_CA_BUNDLE would take precedence over the engine's own certificate authority
    if address.startswith("http+unix://"):
        adapter = UnixAdapter(address, timeout=connect_timeout, max_pool_size=_MAX_IDLE_CONNECTIONS)
        session.mount("http+docker://", adapter)
    elif not session.base_url.startswith("http+docker://"):  # docker-py's adapter for SSH is kept
        for scheme in ("http://", "https://"):
            session.mount(scheme, TcpAdapter(pool_connections=1, pool_maxsize=_MAX_IDLE_CONNECTIONS))
    return session
