"""What the strings of a request must look like: image references, paths, URLs, headers, keys.

Each function is a reader (see `jobs.api.json_readers`): it takes a value and its path, and gives back what is stored.
"""

import binascii
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final

from jobs.api import limits
from jobs.api.json_readers import any_text, array, mapping, text
from jobs.engine.protocol import MOUNTED_DIRECTORIES
from orchestrator_site.base.http.api_errors import InvalidRequest
from orchestrator_site.base.values import http_urls
from orchestrator_site.base.values.image_references import MalformedReference, read_reference

# -- identifiers and images -----------------------------------------------------------------------
_ID = re.compile(limits.ID_PATTERN)


def job_id(value: object, path: str) -> str:
    string = text(1, limits.ID_LENGTH)(value, path)
    if not _ID.fullmatch(string):
        raise InvalidRequest("it must be letters, digits, '.', '_' and '-', and begin with a letter or a digit", field=path)
    return string


def image(value: object, path: str) -> str:
    """A Docker image reference: `[registry[:port]/]name[:tag][@digest]`."""
    string = text(1, limits.IMAGE_LENGTH)(value, path)
    try:
        read_reference(string)
    except MalformedReference as error:
        raise InvalidRequest(str(error), field=path) from error
    return string


# -- paths ----------------------------------------------------------------------------------------
def relative_path(value: object, path: str) -> str:
    """A file below the workspace, normalised: no `.`, no empty component."""
    string = _short_path(value, path)
    if string.startswith("/") or string.endswith("/"):
        raise InvalidRequest("it must be a file's path relative to the workspace", field=path)
    parts = _components(string, path)
    if not parts:
        raise InvalidRequest("it must name a file", field=path)
    return "/".join(parts)


def absolute_path(value: object, path: str) -> str:
    """A directory, normalised."""
    string = _short_path(value, path)
    if not string.startswith("/"):
        raise InvalidRequest("it must be an absolute path", field=path)
    return "/" + "/".join(_components(string, path))


def workspace(value: object, path: str) -> str:
    """A directory of the container's own file system, normalised."""
    directory = absolute_path(value, path)
    if any(PurePosixPath(directory).is_relative_to(mounted) for mounted in MOUNTED_DIRECTORIES):
        raise InvalidRequest("it may not be /dev, /proc or /sys, or below them: files there end with the process", field=path)
    return directory


def _short_path(value: object, path: str) -> str:
    string = any_text(value, path)
    if not 1 <= len(string.encode()) <= limits.PATH_BYTES:
        raise InvalidRequest(f"it must have 1 to {limits.PATH_BYTES} bytes", field=path)
    return string


def _components(string: str, path: str) -> list[str]:
    parts = [part for part in string.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidRequest("it may not hold '..'", field=path)
    return parts


def check_distinct_files(paths: Mapping[str, str]) -> None:
    """No file twice, none where another needs a directory. `paths`: member's path → file's path, normalised."""
    files: set[str] = set()
    directories: set[str] = set()
    for field, file in paths.items():
        parents = {str(parent) for parent in PurePosixPath(file).parents} - {"."}
        if file in files:
            raise InvalidRequest("another input has this path", field=field)
        if file in directories or parents & files:
            raise InvalidRequest("another input's path makes this a file and a directory at once", field=field)
        files.add(file)
        directories |= parents


# -- URLs and headers -----------------------------------------------------------------------------
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_HEADER_VALUE = re.compile(r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")  # RFC 9110, 5.5
_OWN_HEADERS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection"})
_OWN_CALLBACK_HEADERS: Final = _OWN_HEADERS | {
    "accept-encoding",
    "expect",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "user-agent",
    "x-signature-256",
}
_OWN_HEADER: Final = "this header is set by the service and cannot be overridden"
_OWN_CALLBACK_PREFIXES: Final = ("ce-", "content-", "proxy-", "webhook-")


def url(value: object, path: str) -> str:
    """Read an http or https URL that can be requested. What it holds is never repeated in a message."""
    string = text(1, limits.URL_LENGTH)(value, path)
    try:
        http_urls.parse(string)
    except http_urls.InvalidUrl as error:
        raise InvalidRequest(str(error), field=path) from error
    return string


def headers(value: object, path: str) -> dict[str, str]:
    """Read the headers of a download or an upload."""
    return _distinct_headers(mapping(_check_header_name, _header_value)(value, path), path)


def callback_headers(value: object, path: str) -> dict[str, str]:
    """Read the headers that are sent with each event."""
    read = mapping(_check_callback_header_name, _header_value, limits.CALLBACK_HEADERS_MAX)(value, path)
    if sum(len(name) + len(content) for name, content in read.items()) > limits.CALLBACK_HEADERS_BYTES:
        raise InvalidRequest(f"names and values must have at most {limits.CALLBACK_HEADERS_BYTES} bytes in total", field=path)
    return _distinct_headers(read, path)


def _distinct_headers(read: dict[str, str], path: str) -> dict[str, str]:
    seen: set[str] = set()
    for name in read:
        if name.lower() in seen:
            raise InvalidRequest("a header is given twice; case makes no difference", field=path)
        seen.add(name.lower())
    return read


def _check_header_name(name: str, path: str) -> None:
    if not _HEADER_NAME.fullmatch(name):
        raise InvalidRequest("this is not a header's name", field=path)
    if name.lower() in _OWN_HEADERS:
        raise InvalidRequest(_OWN_HEADER, field=path)


def _check_callback_header_name(name: str, path: str) -> None:
    _check_header_name(name, path)
    if name.lower() in _OWN_CALLBACK_HEADERS or name.lower().startswith(_OWN_CALLBACK_PREFIXES):
        raise InvalidRequest(_OWN_HEADER, field=path)


def _header_value(value: object, path: str) -> str:
    string = any_text(value, path)
    if not _HEADER_VALUE.fullmatch(string):
        raise InvalidRequest("a header's value is one line of Latin-1 without spaces at its ends", field=path)
    return string


# -- file contents, modes, keys -------------------------------------------------------------------
_MODE = re.compile(limits.MODE_PATTERN)
_SHA256 = re.compile(limits.SHA256_PATTERN)
_WEBHOOK_SECRET = "whsec_"  # noqa: S105 - the prefix that Standard Webhooks gives its keys


def base64_bytes(string: str, path: str) -> bytes:
    """RFC 4648, section 4: the standard alphabet, padded, nothing between."""
    try:
        return binascii.a2b_base64(string.encode("ascii"), strict_mode=True)
    except ValueError as error:  # of which UnicodeEncodeError and binascii.Error are kinds
        raise InvalidRequest("it is not valid base64", field=path) from error


def mode(value: object, path: str) -> int:
    """A file's mode, from an octal string."""
    string = any_text(value, path)
    if not _MODE.fullmatch(string):
        raise InvalidRequest('it must be an octal string like "0755"', field=path)
    return int(string, 8)


def sha256(value: object, path: str) -> str:
    string = any_text(value, path)
    if not _SHA256.fullmatch(string):
        raise InvalidRequest("it must be 64 hexadecimal digits", field=path)
    return string.lower()


def signing_key(value: object, path: str) -> str:
    """Any string; one that begins with `whsec_` goes on in base64, as Standard Webhooks has it."""
    string = text(1, limits.KEY_LENGTH)(value, path)
    if string.startswith(_WEBHOOK_SECRET):
        _check_webhook_secret(string.removeprefix(_WEBHOOK_SECRET), path)
    return string


def signing_keys(value: object, path: str) -> tuple[str, ...]:
    """Read one key, or a list of the new key and the old one."""
    if not isinstance(value, str | list):
        raise InvalidRequest(f"it must be a string or an array of 1 to {limits.KEYS_MAX} strings", field=path)
    if isinstance(value, str):
        return (signing_key(value, path),)
    return tuple(dict.fromkeys(array(signing_key, 1, limits.KEYS_MAX)(value, path)))


def _check_webhook_secret(encoded: str, path: str) -> None:
    low, high = limits.SECRET_BYTES_MIN, limits.SECRET_BYTES_MAX
    try:
        good = low <= len(base64_bytes(encoded, path)) <= high
    except InvalidRequest:
        good = False
    if not good:
        raise InvalidRequest(f"a key that begins with whsec_ must go on with {low} to {high} bytes in base64, padded", field=path)
