"""HTTP with one Docker engine: connections, time-outs, and what its answers mean.

docker-py gives the transport (unix socket, TCP with TLS), the version and the registry credentials.
Its calls are not used: they read logs without telling the streams apart, do not let go of a
connection when one stops reading, and take a time-out for the end of a log.
"""

import copy
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import requests
import urllib3
from docker import APIClient
from docker.errors import DockerException
from docker.utils import kwargs_from_env, parse_host

from jobs.engine.docker.transport.breakable_sockets import EngineCall, TcpAdapter, UnixAdapter
from jobs.errors import (
    ContainerConflict,
    ContainerNotFound,
    EngineRefused,
    EngineSilent,
    EngineUnavailable,
    JobError,
)
from jobs.interrupt import Interrupt

logger = logging.getLogger(__name__)

SHORT: Final = 60.0  # seconds without a byte, for calls that only look something up
LONG: Final = 300.0  # for calls that make the engine work: create, start, remove, unpack

_CONNECT = 10.0
_CONNECTIONS = 256  # kept open to a host: a follower and a waiter per running job would drain docker-py's 10
_CONNECTIONS_OF_PATH = 8  # docker-py has a pool for each path of a unix socket, and fills and empties it place by place
_SOME_VERSION = "1.41"  # until the engine has said its own
_LONGEST_MESSAGE = 64 * 1024
_CHUNK = 64 * 1024
_LONGEST_ANSWER = 128 * 1024**2  # a list of a thousand containers, each with the largest configuration that an image may have
_PODMAN = "Podman Engine"  # the name that it gives itself among the components of its version
_NO_PODMAN = (
    "DOCKER_HOST leads to Podman, which is not supported: it does not keep jobs apart on their network, among other "
    "differences; use a Docker engine"
)

_TRANSPORT_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)

# Words of an engine or host that is in trouble itself, whoever else the engine was talking to.
_OWN_TROUBLE = (
    "transport is closing",
    "context canceled",
    "shutting down",
    "no space left on device",
    "disk quota exceeded",
    "too many open files",
    "cannot allocate memory",
    "resource temporarily unavailable",
    "containerd.sock",
)
# Where it talks to nobody but containerd these are too. What is answered with 500 then says nothing of the job.
_TROUBLE = (
    *_OWN_TROUBLE,
    "transport: error",
    "connection error",
    "context deadline exceeded",
    "failed to dial",
    "containerd",
    "not supported by any plugin",
)


def quoted(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def is_trouble(message: str) -> bool:
    """Whether an error's text is about the engine's own state. Paths in it do not count: many have containerd's name in them."""
    said = re.sub(r"/\S+", "", message.lower())
    return is_trouble_in_pull(message) or any(words in said for words in _TROUBLE)


def is_trouble_in_pull(message: str) -> bool:
    """The same of a pull, where a connection or a time-out that failed may be the registry's, and a name the image's."""
    return any(words in message.lower() for words in _OWN_TROUBLE)


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """What the engine said. `data` is its JSON, None where there is none."""

    status: int
    data: Any = None
    message: str = ""

    @property
    def failed(self) -> bool:
        return self.status >= 400

    def error(self) -> JobError:
        """What a failed answer means where a call has nothing more special to say."""
        if self.status == 404:
            return ContainerNotFound("the engine has no such container")
        if self.status == 409:
            return ContainerConflict(self.message)
        if self.status >= 500 or is_trouble(self.message):
            return EngineUnavailable(self.message)
        logger.warning("the engine refused a request: %s", self.message)
        return EngineRefused("the engine refused the request; the service's log has the details")


@dataclass(slots=True)
class _About:
    """What the engine has said of itself: its version, empty until it was asked."""

    version: str = ""


class EngineConnection:
    """One engine's API; connects, and learns its version, at the first call. Thread-safe."""

    def __init__(self, host: str, *, keep_open: bool = True) -> None:
        """`host` as in `DOCKER_HOST`, empty for the usual socket; TLS from `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH`.

        Without `keep_open` every call connects anew. Raises `EngineRefused` where these cannot be read.
        """
        try:
            self._client = _client(host)
        except DockerException as error:
            raise EngineRefused(f"DOCKER_HOST cannot be used: {error}") from error
        self._client.headers["Connection"] = "keep-alive" if keep_open else "close"
        self._about = _About()
        self.interrupt = Interrupt()  # ends the calls over this connection
        self._patience = float("inf")

    def bound(self, interrupt: Interrupt, patience: float | None = None) -> "EngineConnection":
        """The same connection; see `Engine.bound`."""
        bound = copy.copy(self)
        bound.interrupt = interrupt
        bound._patience = float("inf") if patience is None else patience
        return bound

    @property
    def api_version(self) -> tuple[int, int]:
        """The engine's. Raises as a call does, where it has to be asked for."""
        major, _, minor = self._version().partition(".")
        return int(major), int(minor)

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of a good answer; options as for `exchange`. Raises what `EngineAnswer.error` says."""
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
        timeout: float = SHORT,
    ) -> EngineAnswer:
        """Send and read the whole answer, whatever its status. Raises `EngineUnavailable`."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        with self._send(method, path, params=params, data=data, headers=headers, timeout=timeout) as response:
            return _read_answer(response)

    def upload(self, path: str, *, params: Mapping[str, str], chunks: Iterable[bytes], method: str = "PUT") -> EngineAnswer:
        """Send a tar archive of unknown length, chunk by chunk. What `chunks` raises comes out as it is."""
        failure: list[Exception] = []

        def guarded() -> Iterator[bytes]:
            try:
                yield from chunks
            except Exception as error:
                failure.append(error)  # it might be an OSError, which would pass for the engine's
                raise

        try:
            with self._send(
                method, path, params=params, data=guarded(), headers={"Content-Type": "application/x-tar"}, timeout=LONG
            ) as response:
                return _read_answer(response)
        except Exception:
            if failure:
                raise failure[0] from None
            raise

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = SHORT,
    ) -> Iterator[requests.Response | EngineAnswer]:
        """A good answer whose body has not been read yet, or a failed one. `timeout` holds up to the first byte of the body.

        Raises `EngineUnavailable`. Leaving the context closes the connection.
        """
        with self._send(method, path, params=params, headers=headers or {}, timeout=timeout) as response:
            yield _read_answer(response) if response.status_code >= 400 else response

    def head(self, path: str, *, params: Mapping[str, str]) -> tuple[int, Mapping[str, str]]:
        """Status and headers."""
        with self._send("HEAD", path, params=params, headers={}, timeout=SHORT) as response:
            return response.status_code, response.headers

    def _send(self, method: str, path: str, **options: Any) -> AbstractContextManager[requests.Response]:
        return self._request(method, f"/v{self._version()}{path}", **options)

    def _version(self) -> str:
        if not self._about.version:
            self._about.version = self._ask_version()
        return self._about.version

    def _ask_version(self) -> str:
        with self._request("GET", "/version", params=None, headers={}, timeout=_CONNECT) as response:
            answer = _read_answer(response)
        if answer.failed:
            raise EngineUnavailable(answer.message)
        said = answer.data if isinstance(answer.data, dict) else {}
        if any(part.get("Name") == _PODMAN for part in said.get("Components") or []):
            raise EngineRefused(_NO_PODMAN)
        version = str(said.get("ApiVersion"))
        if not re.fullmatch(r"\d+\.\d+", version, re.ASCII):
            raise EngineUnavailable("the engine does not say its API version")
        return version

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str],
        timeout: float,
        data: bytes | Iterable[bytes] | None = None,
    ) -> Iterator[requests.Response]:
        self.interrupt.check()
        # While a body is sent the socket has the time-out for connecting: a busy disk must not end an upload.
        connect = timeout if data is not None else _CONNECT
        call = EngineCall()
        with self.interrupt.waking(call.end):
            try:
                with call.current():
                    response = self._client.request(
                        method,
                        self._client.base_url + path,
                        params=params,
                        data=data,
                        headers={"Accept-Encoding": "identity", **headers},
                        timeout=(min(connect, self._patience), min(timeout, self._patience)),
                        stream=True,
                        allow_redirects=False,
                    )
            except _TRANSPORT_ERRORS as error:
                self.interrupt.check()  # a connection that was ended by it looks like a broken one
                raise unavailable(error) from error
            try:
                yield response
            except EngineUnavailable:
                self.interrupt.check()
                raise
            finally:
                response.close()


def _client(host: str) -> APIClient:
    """docker-py's session, which connects to nothing yet. Raises `DockerException`."""
    options = kwargs_from_env({**os.environ, "DOCKER_HOST": host})
    address = str(parse_host(host, tls=bool(options.get("tls"))))
    client = APIClient(version=_SOME_VERSION, timeout=int(_CONNECT), **options)
    client.trust_env = False  # REQUESTS_CA_BUNDLE would be put before the engine's own authority
    if address.startswith("http+unix://"):
        client.mount("http+docker://", UnixAdapter(address, timeout=int(_CONNECT), max_pool_size=_CONNECTIONS_OF_PATH))
    elif not client.base_url.startswith("http+docker://"):  # docker-py's for SSH stays
        for scheme in ("http://", "https://"):
            client.mount(scheme, TcpAdapter(pool_connections=1, pool_maxsize=_CONNECTIONS))
    return client


def unavailable(error: Exception) -> EngineUnavailable:
    """The connection failed; the reason is for the log, since it may name addresses of this machine."""
    # Amid a body requests has another error for a time-out, with urllib3's in it.
    causes = (error, *error.args)
    silent = any(isinstance(cause, (requests.Timeout, urllib3.exceptions.TimeoutError)) for cause in causes)
    kind = EngineSilent if silent else EngineUnavailable
    return kind(f"the engine does not answer: {type(error).__name__}: {error}"[:1000])


def transport_errors() -> tuple[type[Exception], ...]:
    """What reading a body may raise."""
    return _TRANSPORT_ERRORS


def _read_answer(response: requests.Response) -> EngineAnswer:
    try:
        content = response.raw.read(_LONGEST_MESSAGE) if response.status_code >= 400 else _whole(response)
    except _TRANSPORT_ERRORS as error:
        raise unavailable(error) from error
    try:
        data = json.loads(content) if content.strip() else None
    except ValueError:
        data = None
    if response.status_code < 400:
        return EngineAnswer(response.status_code, data)
    said = data.get("message") if isinstance(data, dict) else content.decode(errors="replace")
    return EngineAnswer(response.status_code, data, str(said or f"the engine answered {response.status_code}").strip()[:1000])


def _whole(response: requests.Response) -> bytes:
    content = bytearray()
    for chunk in response.iter_content(_CHUNK):
        content += chunk
        if len(content) > _LONGEST_ANSWER:
            raise EngineRefused("the engine's answer is too long to be read")
    return bytes(content)
