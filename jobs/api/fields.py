"""The rules for the values of a job in a request: ids, images, commands, paths, URLs, headers, signing keys.

Each function returns what is stored, or raises a `ValidationError`. No error repeats anything of the value.
"""

import binascii
import json
import re
from decimal import ROUND_CEILING, Decimal
from functools import partial
from typing import Final

from django.conf import settings
from rest_framework.serializers import ValidationError

from jobs import exec_limits
from jobs.api import limits
from jobs.engine.protocol import MOUNTED_DIRECTORIES
from orchestrator_site.base.http.fields import StringMap, Text, error_at
from orchestrator_site.base.values import http_urls
from orchestrator_site.base.values.image_patterns import is_allowed
from orchestrator_site.base.values.image_references import MalformedReference, read_reference

_ID_MESSAGE = "must consist of letters, digits, '.', '_' and '-', and begin with a letter or digit"
JobId = partial(Text, low=1, high=limits.ID_LENGTH, pattern=limits.ID_PATTERN, message=_ID_MESSAGE)


# -- images, commands and what a container gets ---------------------------------------------------
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
    if len(text.encode()) > exec_limits.MAX_STRING_BYTES:
        raise ValidationError(f"must have at most {exec_limits.MAX_STRING_BYTES} bytes (for a variable, of `NAME=value`)")
    return text


def arguments(command: list[str]) -> list[str]:
    """Check the length of all arguments together."""
    if exec_limits.size_of(command) > exec_limits.MAX_TOTAL_BYTES:
        raise ValidationError("the arguments must have less than 2 MiB in total, which is the limit of Linux")
    return command


def variable_name(name: str) -> None:
    """Check the name of a variable."""
    if not name or "=" in name:
        raise ValidationError("the name of a variable must not be empty or contain '='")


def environment(variables: dict[str, str]) -> dict[str, str]:
    """Check the length of each variable."""
    for name, value in variables.items():
        try:
            argument(f"{name}={value}")
        except ValidationError as error:
            raise error_at(name, error.detail) from error
    return variables


def cpu_millis(cores: float) -> int:
    """Return thousandths of a core, rounded up, so that a job never has less than it asked for."""
    return int((Decimal(str(cores)) * 1000).to_integral_value(ROUND_CEILING))


def meta_name(name: str) -> None:
    """Check the name of a member of `meta`."""
    if not 1 <= len(name) <= limits.META_KEY_LENGTH:
        raise ValidationError(f"a name must have 1 to {limits.META_KEY_LENGTH} characters")


def meta(members: dict[str, str]) -> dict[str, str]:
    """Check the size of `meta`, which is in all events."""
    if len(json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()) > limits.META_BYTES:
        raise ValidationError(f"must have at most {limits.META_BYTES} bytes as JSON")
    return members


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
_URL_SCHEMA: Final = {"pattern": "^[hH][tT][tT][pP][sS]?://"}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_HEADER_VALUE = r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"  # RFC 9110, 5.5
_HEADER_VALUE_MESSAGE = "must be one line of Latin-1 text without leading or trailing spaces"
_OWN: Final = frozenset({"host", "content-length", "transfer-encoding", "connection"})
_OWN_OF_CALLBACKS = {"accept-encoding", "expect", "keep-alive", "te", "trailer", "upgrade", "user-agent", "x-signature-256"}
_OWN_PREFIXES_OF_CALLBACKS: Final = ("ce-", "content-", "proxy-", "webhook-")


def url(text: str) -> str:
    """Check an http or https URL: whether it can be requested."""
    try:
        http_urls.parse(text)
    except http_urls.InvalidUrl as error:
        raise ValidationError(str(error)) from error
    return text


def header_name(name: str, *, own: bool = False) -> None:
    """Check the name of a header. `own`: the service sets it itself."""
    if not _HEADER_NAME.fullmatch(name):
        raise ValidationError("the name of a header must consist of letters, digits and !#$%&'*+-.^_`|~")
    if own or name.lower() in _OWN:
        raise ValidationError("this header is set by the service and cannot be overridden")


def callback_header_name(name: str) -> None:
    """Check the name of a header that is sent with each event."""
    hyphenated = name.lower().replace("_", "-")  # PHP and CGI programs read both as the same header
    own = hyphenated in _OWN | _OWN_OF_CALLBACKS or hyphenated.startswith(_OWN_PREFIXES_OF_CALLBACKS)
    header_name(name, own=own)


def headers(given: dict[str, str]) -> dict[str, str]:
    """Check that no header is given twice."""
    if len({name.lower() for name in given}) < len(given):
        raise ValidationError("a header is given twice; names are case-insensitive")
    return given


def callback_headers(given: dict[str, str]) -> dict[str, str]:
    """Check the headers that are sent with each event."""
    if sum(len(name) + len(value) for name, value in given.items()) > limits.CALLBACK_HEADERS_BYTES:
        raise ValidationError(f"names and values must have at most {limits.CALLBACK_HEADERS_BYTES} bytes in total")
    return headers(given)


Url = partial(Text, low=1, high=limits.URL_LENGTH, parse=url, schema=_URL_SCHEMA, help_text="http or https. Never shown again.")
_header_value = Text(pattern=_HEADER_VALUE, schema={"pattern": None}, message=_HEADER_VALUE_MESSAGE)
Headers = partial(
    StringMap,
    child=_header_value,
    check_name=header_name,
    parse=headers,
    required=False,
    help_text="Request headers, sent in Latin-1. Never shown again.",
)


# -- contents and keys ----------------------------------------------------------------------------
_WEBHOOK_SECRET = "whsec_"  # noqa: S105 - the prefix that Standard Webhooks gives its keys


def signing_key(text: str) -> str:
    """Check a key: any string, but after `whsec_` base64, as Standard Webhooks has it."""
    if text.startswith(_WEBHOOK_SECRET):
        secret = read_base64(text.removeprefix(_WEBHOOK_SECRET))
        low, high = limits.SECRET_BYTES
        if secret is None or not low <= len(secret) <= high:
            raise ValidationError(f"after {_WEBHOOK_SECRET} a key must be {low} to {high} bytes in padded base64")
    return text


def signing_keys(given: str | list[str]) -> tuple[str, ...]:
    """Return the keys, each once."""
    return (given,) if isinstance(given, str) else tuple(dict.fromkeys(given))


octal = partial(int, base=8)


def read_base64(text: str) -> bytes | None:
    """Return the bytes; None if the text is not RFC 4648, section 4: the standard alphabet, padded, with nothing between."""
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError:  # UnicodeEncodeError and binascii.Error are kinds of it
        return None
