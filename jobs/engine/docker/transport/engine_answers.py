"""What an engine's answers, and failures to get one, mean in the errors of `jobs.errors`."""

import json
import logging
import re
from dataclasses import dataclass
from typing import Any, Final

import requests
import urllib3

from jobs.errors import ContainerConflict, ContainerNotFound, EngineRefused, EngineSilent, EngineUnavailable, JobError

logger = logging.getLogger(__name__)

TRANSPORT_ERRORS: Final = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)  # sending, or reading a body

_MAX_ERROR_BYTES: Final = 64 * 1024
_MAX_MESSAGE_LENGTH: Final = 1000
_MAX_ANSWER_BYTES: Final = 128 * 1024**2  # a list of a thousand containers with the largest configuration that an image may have
_CHUNK_BYTES: Final = 64 * 1024

# Words that only an engine or host in trouble uses, even if a registry was involved.
_ENGINE_TROUBLE_IN_PULL: Final = (
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
# If only containerd was involved, these words mean trouble too.
_ENGINE_TROUBLE: Final = (
    "transport: error",
    "connection error",
    "context deadline exceeded",
    "failed to dial",
    "containerd",
    "not supported by any plugin",
)


def is_engine_trouble(message: str) -> bool:
    """Return whether an error message is about the engine's own state rather than about the request.

    Paths are ignored, since many contain the name of containerd.
    """
    without_paths = re.sub(r"/\S+", "", message.lower())
    return is_engine_trouble_in_pull(message) or any(words in without_paths for words in _ENGINE_TROUBLE)


def is_engine_trouble_in_pull(message: str) -> bool:
    """Return the same for a pull, where a failed connection or a time-out may be the registry's fault."""
    return any(words in message.lower() for words in _ENGINE_TROUBLE_IN_PULL)


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """An answer that was read to its end. `data` is its JSON, if any; `message` is the error text of a failed answer."""

    status: int
    data: Any = None
    message: str = ""

    @property
    def failed(self) -> bool:
        return self.status >= 400

    def error(self) -> JobError:
        """Return what a failed answer means for calls that do not give its status a special meaning."""
        if self.status == 404:
            return ContainerNotFound("the engine has no such container")
        if self.status == 409:
            return ContainerConflict(self.message)
        if self.status >= 500 or is_engine_trouble(self.message):
            return EngineUnavailable(self.message)
        logger.warning("the engine refused a request: %s", self.message)
        return EngineRefused("the engine refused the request; the service's log has the details")


def engine_unavailable(error: Exception) -> EngineUnavailable:
    """Return what one of `TRANSPORT_ERRORS` means. Its text is for the log: it may contain addresses of this machine."""
    # For a time-out within a body requests raises a ConnectionError that wraps urllib3's error.
    causes = (error, *error.args)
    timed_out = any(isinstance(cause, (requests.Timeout, urllib3.exceptions.TimeoutError)) for cause in causes)
    kind = EngineSilent if timed_out else EngineUnavailable
    return kind(f"the engine does not answer: {_in_words(error)}"[:_MAX_MESSAGE_LENGTH])


def _in_words(error: BaseException) -> str:
    """Return what the operating system said, if an error of it is the cause, else the error itself with its type."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return f"{type(error).__name__}: {error}"


def read_answer(response: requests.Response) -> EngineAnswer:
    """Read an answer to its end. Raise `EngineUnavailable`, or `EngineRefused` if it is too long."""
    failed = response.status_code >= 400
    try:
        content = response.raw.read(_MAX_ERROR_BYTES) if failed else _read_whole(response)
    except TRANSPORT_ERRORS as error:
        raise engine_unavailable(error) from error
    try:
        data = json.loads(content) if content.strip() else None
    except ValueError:
        data = None
    if not failed:
        return EngineAnswer(response.status_code, data)
    message = data.get("message") if isinstance(data, dict) else content.decode(errors="replace")
    message = str(message or f"the engine answered {response.status_code}").strip()
    return EngineAnswer(response.status_code, data, message[:_MAX_MESSAGE_LENGTH])


def _read_whole(response: requests.Response) -> bytes:
    content = bytearray()
    for chunk in response.iter_content(_CHUNK_BYTES):
        content += chunk
        if len(content) > _MAX_ANSWER_BYTES:
            raise EngineRefused("the engine's response is too long to be read")
    return bytes(content)
