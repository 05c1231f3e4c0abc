"""Authenticates requests by API keys."""

import hmac
import logging
from http import HTTPStatus
from math import ceil
from typing import Final

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from orchestrator_site.base.access import made_keys, throttles
from orchestrator_site.base.access.made_keys import UnusableKey
from orchestrator_site.base.access.models import DEFAULT
from orchestrator_site.base.access.scopes import EVERYTHING, Access
from orchestrator_site.base.access.throttles import Allowance
from orchestrator_site.base.config.api_key_file import digest_of, known_digests
from orchestrator_site.base.http import error_texts
from orchestrator_site.base.http.api_errors import ApiError

logger = logging.getLogger(__name__)

_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="orchestrator"'}
_INVALID_TOKEN: Final = {"WWW-Authenticate": 'Bearer realm="orchestrator", error="invalid_token"'}


class ApiKeyAuthentication(BaseAuthentication):
    """Authentication by `Authorization: Bearer <key>`; any request is accepted if `API_AUTH` is `off`."""

    def authenticate(self, request: Request) -> tuple[None, Access]:
        """Return what the key allows as `request.auth`. Raise `ApiError` 401 for a missing or unknown key."""
        if not settings.CONFIGURATION.api_auth_required:
            return None, EVERYTHING
        scheme, _, key = request.headers.get("Authorization", "").strip().partition(" ")
        # headers arrive as Latin-1 (PEP 3333); in the file the key is bytes
        secret = key.strip().encode("latin-1", "replace") if scheme.lower() == "bearer" else b""
        if not secret:
            self._check_any_key()
            raise ApiError(HTTPStatus.UNAUTHORIZED, headers=_CHALLENGE)
        try:
            access = _access(secret)
        except UnusableKey as error:
            _throttle(request)
            raise _invalid(str(error)) from error
        if access is not None:
            return None, access
        _throttle(request)
        self._check_any_key()
        raise _invalid("unknown API key")

    @staticmethod
    def _check_any_key() -> None:
        if not (_file_digests() or made_keys.any_usable()):
            logger.error("a request was refused because there is no API key: add one to API_KEY_FILE or make one in the admin")
            raise ApiError(HTTPStatus.UNAUTHORIZED, "the service has no API keys yet", headers=_CHALLENGE)


def _access(key: bytes) -> Access | None:
    """Return what a key allows, None if it is unknown. Raise `UnusableKey` for one that was revoked or has expired."""
    digest = digest_of(key)
    # every digest is compared, so that the time does not tell which one was close
    if any([hmac.compare_digest(digest, known) for known in _file_digests()]):  # noqa: C419 - see above
        return Access(DEFAULT, key=digest.hex())
    made = made_keys.find(key)
    return None if made is None else Access(made.namespace_id, made.read_only, made.prefix)


def _file_digests() -> frozenset[bytes]:
    path = settings.CONFIGURATION.api_key_file
    return known_digests(path) if path else frozenset()


def _throttle(request: Request) -> None:
    """Raise a 429 for an address from which too many wrong keys come. It is not asked for requests with a valid key."""
    check_throttle((throttles.WRONG_KEYS, throttles.client_of(request._request)), sentence=error_texts.WRONG_KEYS)


def check_throttle(*claims: tuple[Allowance, str], sentence: str) -> None:
    """Take one of each allowance. If there is none left, raise a 429 that says when to try again."""
    wait = throttles.spend(*claims)
    if wait > 0:
        raise ApiError(HTTPStatus.TOO_MANY_REQUESTS, sentence, headers={"Retry-After": str(ceil(wait))})


def _invalid(sentence: str) -> ApiError:
    return ApiError(HTTPStatus.UNAUTHORIZED, sentence, headers=_INVALID_TOKEN)


def is_still_known(access: Access) -> bool:
    """Return whether the key that a request came with is valid now; also if it needed none. For answers that take long."""
    if not access.key:
        return True
    if access.key.startswith(made_keys.BEGINNING):
        return made_keys.is_usable(access.key)
    return bytes.fromhex(access.key) in _file_digests()


def check_still_known(access: Access) -> None:
    """Raise the 401 of a key that was revoked or has expired since a request began, which then waited."""
    if not is_still_known(access):
        raise _invalid("the API key was revoked or has expired")


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The description of the keys in the OpenAPI document."""

    target_class = ApiKeyAuthentication
    name = "apiKey"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:  # noqa: ARG002
        return {"type": "http", "scheme": "bearer"}
