"""Who may call the API: holders of a key.

Keys are the lines of `API_KEY_FILE`; blank lines and lines that begin with `#` are none. The file is read
again when it changes, so that a key can be added or taken back while the service runs. Only digests are kept.
"""

import hashlib
import hmac
import logging
import os
import threading
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path

from django.conf import settings
from django.http import HttpRequest

from orchestrator_site.base.http.api_errors import ApiError

logger = logging.getLogger(__name__)

_REALM = 'Bearer realm="orchestrator"'


def require_key(request: HttpRequest) -> None:
    """Raise `ApiError` 401 unless the request carries `Authorization: Bearer <key>` with a key that is known."""
    if not settings.CONFIGURATION.api_auth_required:
        return
    digests = _known_digests()
    if not digests:
        logger.error("a call was refused because there is no API key: put one into the file that API_KEY_FILE names")
        raise _unauthorized("this service has no API key yet, so it takes no calls", _REALM)
    scheme, _, key = request.headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise _unauthorized("an API key is needed: send Authorization: Bearer <key>", _REALM)
    # headers arrive as Latin-1 (PEP 3333); in the file the key is bytes
    digest = _digest(key.strip().encode("latin-1", "replace"))
    # every digest is compared, so that the time tells nothing about which one came near
    if not any([hmac.compare_digest(digest, known) for known in digests]):  # noqa: C419 - see above
        raise _unauthorized("this API key is not known", f'{_REALM}, error="invalid_token"')


class KeyFile:
    """The digests of the keys in a file, read again when the file changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._version: tuple[int, ...] | None = None
        self._digests: frozenset[bytes] = frozenset()

    def digests(self) -> frozenset[bytes]:
        """Empty where the file cannot be read: keys that are not there any more are not good any more."""
        with self._lock:
            try:
                with self._path.open("rb") as file:
                    status = os.fstat(file.fileno())
                    version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
                    if version != self._version:
                        self._digests = read_keys(file.read())
                        self._version = version
            except OSError as error:
                logger.error("API_KEY_FILE cannot be read: %s", error.strerror)
                self._version, self._digests = None, frozenset()
            return self._digests


def read_keys(text: bytes) -> frozenset[bytes]:
    """The digests of the keys in a key file's content."""
    lines = (line.strip() for line in text.splitlines())
    return frozenset(_digest(line) for line in lines if line and not line.startswith(b"#"))


def _known_digests() -> frozenset[bytes]:
    path = settings.CONFIGURATION.api_key_file
    return _key_file(path).digests() if path else frozenset()


@lru_cache(maxsize=8)
def _key_file(path: Path) -> KeyFile:
    return KeyFile(path)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _unauthorized(sentence: str, challenge: str) -> ApiError:
    return ApiError(HTTPStatus.UNAUTHORIZED, sentence, headers={"WWW-Authenticate": challenge})
