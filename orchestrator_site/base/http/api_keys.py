"""Authenticates requests by API keys."""

import hmac
import logging
from http import HTTPStatus
from typing import Final

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from orchestrator_site.base.config.api_key_file import digest_of, known_digests
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
        digests = known_digests(path) if path else frozenset()
        if not digests:
            logger.error("a request was refused because there is no API key: add one to the file that API_KEY_FILE names")
            raise ApiError(HTTPStatus.UNAUTHORIZED, "the service has no API keys yet", headers=_CHALLENGE)
        scheme, _, key = request.headers.get("Authorization", "").strip().partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise ApiError(HTTPStatus.UNAUTHORIZED, headers=_CHALLENGE)
        # headers arrive as Latin-1 (PEP 3333); in the file the key is bytes
        digest = digest_of(key.strip().encode("latin-1", "replace"))
        # every digest is compared, so that the time does not tell which one was close
        if not any([hmac.compare_digest(digest, known) for known in digests]):  # noqa: C419 - see above
            raise ApiError(HTTPStatus.UNAUTHORIZED, "unknown API key", headers=_INVALID_TOKEN)
        return None, digest


def is_still_known(digest: bytes | None) -> bool:
    """Return whether the key that a request came with is valid now; also if it needed none. For answers that take long."""
    path = settings.CONFIGURATION.api_key_file
    return digest is None or (path is not None and digest in known_digests(path))


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The description of the keys in the OpenAPI document."""

    target_class = ApiKeyAuthentication
    name = "apiKey"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:  # noqa: ARG002
        return {"type": "http", "scheme": "bearer"}
