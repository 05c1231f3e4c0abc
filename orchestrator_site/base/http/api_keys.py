"""Authenticates requests by API keys.

Keys are the lines of `API_KEY_FILE`; blank lines and lines starting with `#` are ignored. The file is read again when it
changes, so that keys can be added and revoked while the service runs. Only digests are kept in memory.
"""

import hashlib
import hmac
import logging
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Final

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from orchestrator_site.base.http.api_errors import ApiError

logger = logging.getLogger(__name__)

_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="orchestrator"'}
_INVALID_TOKEN: Final = {"WWW-Authenticate": 'Bearer realm="orchestrator", error="invalid_token"'}


class ApiKeyAuthentication(BaseAuthentication):
    """Authentication by `Authorization: Bearer <key>`; any request is accepted if `API_AUTH` is `off`."""

    def authenticate(self, request: Request) -> tuple[None, bytes] | None:
        """Return the digest of the key as `request.auth`. Raise `ApiError` 401 for a missing or unknown key."""
        if not settings.CONFIGURATION.api_auth_required:
            return None
        path = settings.CONFIGURATION.api_key_file
        digests = _known_digests(path) if path else frozenset()
        if not digests:
            logger.error("a request was refused because there is no API key: add one to the file that API_KEY_FILE names")
            raise ApiError(HTTPStatus.UNAUTHORIZED, "the service has no API keys yet", headers=_CHALLENGE)
        scheme, _, key = request.headers.get("Authorization", "").strip().partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise ApiError(HTTPStatus.UNAUTHORIZED, headers=_CHALLENGE)
        # headers arrive as Latin-1 (PEP 3333); in the file the key is bytes
        digest = _digest(key.strip().encode("latin-1", "replace"))
        # every digest is compared, so that the time does not tell which one was close
        if not any([hmac.compare_digest(digest, known) for known in digests]):  # noqa: C419 - see above
            raise ApiError(HTTPStatus.UNAUTHORIZED, "unknown API key", headers=_INVALID_TOKEN)
        return None, digest


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The description of the keys in the OpenAPI document."""

    target_class = ApiKeyAuthentication
    name = "apiKey"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:  # noqa: ARG002
        return {"type": "http", "scheme": "bearer"}


def read_keys(text: bytes) -> frozenset[bytes]:
    """Return the digests of the keys in the content of a key file."""
    lines = (line.strip() for line in text.splitlines())
    return frozenset(_digest(line) for line in lines if line and not line.startswith(b"#"))


def _known_digests(path: Path) -> frozenset[bytes]:
    """Return the digests of the keys in the file; none if it cannot be read, since removing it revokes its keys."""
    try:
        status = path.stat()
        return _digests_of(path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    except OSError as error:
        logger.error("API_KEY_FILE cannot be read: %s", error.strerror)
        return frozenset()


@lru_cache(maxsize=1)
def _digests_of(path: Path, version: tuple[int, ...]) -> frozenset[bytes]:  # noqa: ARG001 - the file is read once a version
    return read_keys(path.read_bytes())


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
