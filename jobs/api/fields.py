"""The fields of a job in a request: ids, images, commands, paths, URLs, headers, signing keys."""

import binascii
import json
import re
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from django.conf import settings
from rest_framework.serializers import ValidationError

from jobs import exec_limits
from jobs.api import limits
from jobs.engine.protocol import MOUNTED_DIRECTORIES
from orchestrator_site.base.http.fields import Array, Number, StrictField, StringMap, Text, error_at
from orchestrator_site.base.values import http_urls
from orchestrator_site.base.values.image_patterns import is_allowed
from orchestrator_site.base.values.image_references import MalformedReference, read_reference


# -- identifiers, images and commands -------------------------------------------------------------
class JobId(Text):
    """The id of a job."""

    default_error_messages = {"pattern": "must be letters, digits, '.', '_' and '-', and start with a letter or digit"}

    def __init__(self, **options: Any) -> None:
        super().__init__(low=1, high=limits.ID_LENGTH, pattern=limits.ID_PATTERN, **options)


def image(text: str) -> str:
    """Check a Docker image reference: `[registry[:port]/]name[:tag][@digest]`."""
    try:
        read_reference(text)
    except MalformedReference as error:
        raise ValidationError(str(error)) from error
    if not is_allowed(text, settings.CONFIGURATION.images_allow):
        raise ValidationError("the image does not match any pattern in IMAGES_ALLOW")
    return text


def argument(text: str) -> str:
    """Check a string that Linux has to pass to a program."""
    if len(text.encode()) > exec_limits.LONGEST:
        raise ValidationError(f"must have at most {exec_limits.LONGEST} bytes (for a variable, of `NAME=value`)")
    return text


class Command(StrictField):
    """A string for a shell, or an array of arguments."""

    default_error_messages = {
        "type": "must be a string or a non-empty array of strings",
        "total": "the arguments must have less than 2 MiB in total, which is the limit of Linux",
    }

    def __init__(self, **options: Any) -> None:
        self._string, self._array = Text(low=1, parse=argument), Array(Text(parse=argument), low=1)
        super().__init__(schema={"oneOf": [self._string, self._array]}, **options)

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, str):
            return self._string.to_internal_value(data)
        if not isinstance(data, list) or not data:
            self.fail("type")
        command = self._array.to_internal_value(data)
        if exec_limits.taken(command) > exec_limits.TOTAL:
            self.fail("total")
        return command


class Environment(StringMap):
    """The variables of a job."""

    default_error_messages = {"name": "the name of a variable must not be empty or contain '='"}

    def check_name(self, name: str) -> None:
        if not name or "=" in name:
            self.fail_at(name, "name")

    def to_internal_value(self, data: Any) -> Any:
        environment = super().to_internal_value(data)
        for name, value in environment.items():
            try:
                argument(f"{name}={value}")
            except ValidationError as error:
                raise error_at(name, error.detail) from error
        return environment


class Meta(StringMap):
    """What a client wants to see in all events of a job."""

    default_error_messages = {
        "name": f"a name must have 1 to {limits.META_KEY_LENGTH} characters",
        "bytes": f"must have at most {limits.META_BYTES} bytes as JSON",
    }

    def check_name(self, name: str) -> None:
        if not 1 <= len(name) <= limits.META_KEY_LENGTH:
            self.fail_at(name, "name")

    def to_internal_value(self, data: Any) -> Any:
        meta = super().to_internal_value(data)
        if len(json.dumps(meta, ensure_ascii=False, separators=(",", ":")).encode()) > limits.META_BYTES:
            self.fail("bytes")
        return meta


class Cpu(Number):
    """Cores, as thousandths of one; fractions of these are rounded up, so that a job never has less than it asked for."""

    def to_internal_value(self, data: Any) -> Any:
        return int((Decimal(str(super().to_internal_value(data))) * 1000).to_integral_value(ROUND_CEILING))


# -- paths ----------------------------------------------------------------------------------------
_MOUNTED: Final = tuple(f"{directory}/" for directory in MOUNTED_DIRECTORIES)


def file_path(text: str) -> str:
    """Return the path of a file below the workspace, normalized."""
    parts = _components(text)
    if not parts or text.startswith("/") or text.endswith("/"):
        raise ValidationError("must be the path of a file relative to the workspace")
    return "/".join(parts)


def workspace(text: str) -> str:
    """Return a directory of the container's own file system, normalized."""
    directory = "/" + "/".join(_components(text))
    if not text.startswith("/"):
        raise ValidationError("must be an absolute path")
    if f"{directory}/".startswith(_MOUNTED):
        raise ValidationError("must not be /dev, /proc, /sys or below them: files there are lost when the process ends")
    return directory


def _components(text: str) -> list[str]:
    if not 1 <= len(text.encode()) <= limits.PATH_BYTES:
        raise ValidationError(f"must have 1 to {limits.PATH_BYTES} bytes")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValidationError("must not contain '..'")
    return parts


# -- URLs and headers -----------------------------------------------------------------------------
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_HEADER_VALUE = r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"  # RFC 9110, 5.5
_NOT_A_VALUE = "must be one line of Latin-1 without spaces at its ends"
_OWN: Final = frozenset({"host", "content-length", "transfer-encoding", "connection"})
_OWN_OF_CALLBACKS: Final = _OWN.union(
    ("accept-encoding", "expect", "keep-alive", "te", "trailer", "upgrade", "user-agent", "x-signature-256")
)
_OWN_PREFIXES_OF_CALLBACKS: Final = ("ce-", "content-", "proxy-", "webhook-")


class Url(Text):
    """An http or https URL that can be requested. No error repeats any of it."""

    def __init__(self) -> None:
        schema = {"pattern": "^[hH][tT][tT][pP][sS]?://"}
        super().__init__(low=1, high=limits.URL_LENGTH, parse=_url, schema=schema, help_text="http or https. Never shown again.")


def _url(text: str) -> str:
    try:
        http_urls.parse(text)
    except http_urls.InvalidUrl as error:
        raise ValidationError(str(error)) from error
    return text


class Headers(StringMap):
    """The headers of a request."""

    default_error_messages = {
        "name": "the name of a header must consist of letters, digits and !#$%&'*+-.^_`|~",
        "own": "this header is set by the service and cannot be overridden",
        "twice": "a header is given twice; upper and lower case make no difference",
    }

    def __init__(self, help_text: str = "Request headers, sent in Latin-1. Never shown again.", **options: Any) -> None:
        value = Text(pattern=_HEADER_VALUE, schema={"pattern": None}, error_messages={"pattern": _NOT_A_VALUE})
        super().__init__(child=value, required=False, help_text=help_text, **options)

    def check_name(self, name: str) -> None:
        if not _HEADER_NAME.fullmatch(name):
            self.fail_at(name, "name")
        if self.is_own(name.lower()):
            self.fail_at(name, "own")

    def is_own(self, name: str) -> bool:
        """Return whether the service sets this header itself. `name` is in lower case."""
        return name in _OWN

    def to_internal_value(self, data: Any) -> Any:
        headers = super().to_internal_value(data)
        if len({name.lower() for name in headers}) < len(headers):
            self.fail("twice")
        return headers


class CallbackHeaders(Headers):
    """The headers that are sent with each event."""

    default_error_messages = {"bytes": f"names and values must have at most {limits.CALLBACK_HEADERS_BYTES} bytes in total"}

    def is_own(self, name: str) -> bool:
        return name in _OWN_OF_CALLBACKS or name.startswith(_OWN_PREFIXES_OF_CALLBACKS)

    def to_internal_value(self, data: Any) -> Any:
        headers = super().to_internal_value(data)
        if sum(len(name) + len(value) for name, value in headers.items()) > limits.CALLBACK_HEADERS_BYTES:
            self.fail("bytes")
        return headers


# -- contents and keys ----------------------------------------------------------------------------
_WEBHOOK_SECRET = "whsec_"  # noqa: S105 - the prefix that Standard Webhooks gives its keys
_LOW, _HIGH = limits.SECRET_BYTES_MIN, limits.SECRET_BYTES_MAX


class SigningKeys(StrictField):
    """One key, or an array of the new key and the old one. A key is any string; after `whsec_` it is base64."""

    default_error_messages = {"type": f"must be a string or an array of 1 to {limits.KEYS_MAX} strings"}

    def __init__(self, **options: Any) -> None:
        help_text = f"`{_WEBHOOK_SECRET}` and {_LOW} to {_HIGH} bytes in base64, or any string."
        self._key = Text(low=1, high=limits.KEY_LENGTH, parse=_signing_key, help_text=help_text)
        self._keys = Array(self._key, low=1, high=limits.KEYS_MAX)
        super().__init__(schema={"oneOf": [self._key, self._keys]}, **options)

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str | list):
            self.fail("type")
        keys = self._keys.to_internal_value(data) if isinstance(data, list) else [self._key.to_internal_value(data)]
        return tuple(dict.fromkeys(keys))


def _signing_key(text: str) -> str:
    if text.startswith(_WEBHOOK_SECRET):
        secret = read_base64(text.removeprefix(_WEBHOOK_SECRET))
        if secret is None or not _LOW <= len(secret) <= _HIGH:
            raise ValidationError(f"after {_WEBHOOK_SECRET} a key must be {_LOW} to {_HIGH} bytes in base64, padded")
    return text


def read_base64(text: str) -> bytes | None:
    """Return the bytes; None if the text is not RFC 4648, section 4: the standard alphabet, padded, with nothing between."""
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError:  # UnicodeEncodeError and binascii.Error are kinds of it
        return None
