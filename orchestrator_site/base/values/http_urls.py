"""Parses http and https URLs: their host in one spelling, and the exact bytes of path and query.

The API, outgoing requests and redirects share this parser, so the URL that was accepted is the one that is checked and sent.
"""

import re
import socket
from base64 import b64encode
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

import idna

_PORTS: Final = {"http": 80, "https": 443}
# Ports of other protocols, whose servers might take a request for commands: those that browsers refuse (Fetch standard, 2.9),
# except for the first twenty, whose protocols have no commands.
_OTHER_PROTOCOLS: Final = frozenset(
    {
        *(20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111, 113, 115, 117, 119),
        *(123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556),
        *(563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665),
        *(6666, 6667, 6668, 6669, 6679, 6697, 10080),
    }
)
_PARTS: Final = re.compile(r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(\?[^#]*)?(?:#.*)?", re.DOTALL)  # RFC 3986, appendix B
_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f-\xa0\\\ud800-\udfff]|\s")
_HOST_AND_PORT: Final = re.compile(r"(\[.*\]|[^:]*)(?::(.*))?")
_PORT: Final = re.compile(r"0*([0-9]{1,5})")
_LABEL: Final = r"[a-z0-9_][a-z0-9_-]{0,62}"
_NAME: Final = re.compile(rf"(?=.{{1,253}}\.?\Z){_LABEL}(?:\.{_LABEL})*\.?")
_ENDS_IN_A_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
_NO_VALID_HOST: Final = "the URL must have a valid host"
_PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F)))


class InvalidUrl(ValueError):
    """The URL can never be requested. The message repeats nothing of the URL."""


@dataclass(frozen=True, slots=True)
class HttpUrl:
    """The parts of an http or https URL that a request needs."""

    scheme: str
    host: str  # as `read_host` returns it
    port: int
    userinfo: str | None = field(repr=False)  # as written
    target: str = field(repr=False)  # path and query for the request line: as written, except for characters that are not ASCII

    @property
    def origin(self) -> str:
        """Return scheme, host and port in one spelling: `https://example.com:443`."""
        return f"{self.scheme}://{_bracketed(self.host.rstrip('.'))}:{self.port}"

    @property
    def authority(self) -> str:
        """Return the value of the `Host` header: the host, and the port if it is not the scheme's own."""
        host = _bracketed(self.host.rstrip("."))
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def root(self) -> str:
        """Return the URL without userinfo, path and query."""
        return f"{self.scheme}://{_bracketed(self.host)}:{self.port}/"


class _Parts(NamedTuple):
    """The components of a URL or a relative reference; None if absent."""

    scheme: str | None
    authority: str | None
    path: str
    query: str | None  # with its question mark


def parse(url: str) -> HttpUrl:
    """Parse a URL. Raise `InvalidUrl` if it cannot be requested.

    Path and query are unchanged, except that an empty path becomes `/` and non-ASCII characters percent-encoded UTF-8.
    """
    if _FORBIDDEN.search(url):
        raise InvalidUrl("the URL must not contain spaces, control characters or backslashes")
    parts = _split(url)
    scheme = (parts.scheme or "").lower()
    if scheme not in _PORTS:
        raise InvalidUrl("the URL must begin with http:// or https://")
    userinfo, at, host_and_port = (parts.authority or "").rpartition("@")
    match = _HOST_AND_PORT.fullmatch(host_and_port)
    if match is None:
        raise InvalidUrl(_NO_VALID_HOST)
    return HttpUrl(
        scheme=scheme,
        host=read_host(match[1]),
        port=_read_port(match[2]) if match[2] else _PORTS[scheme],
        userinfo=userinfo if at else None,
        target=_ascii((parts.path or "/") + (parts.query or "")),
    )


def read_host(host: str) -> str:
    """Return the name or address that the host of a URL means, in lower-case ASCII. Raise `InvalidUrl`.

    Names are encoded by UTS 46. A host that ends in a number is an IPv4 address; short, octal and hexadecimal notations are
    read as the system's resolver does. IPv6 addresses lose their brackets.
    """
    if host.startswith("["):
        return _read_ipv6(host[1:-1])
    name = host.lower() if host.isascii() else _encode_name(host)
    if not _NAME.fullmatch(name):
        raise InvalidUrl(_NO_VALID_HOST)
    return _read_ipv4(name.rstrip(".")) if _ENDS_IN_A_NUMBER.fullmatch(name) else name


def basic_credentials(userinfo: str) -> bytes:
    """Return the value of an `Authorization` header for the userinfo of a URL."""
    user, _, password = userinfo.partition(":")
    return b"Basic " + b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password))


def follow(base: str, location: str) -> str:
    """Return the URL that a redirect from `base` leads to. Raise `InvalidUrl`.

    `location` is the value of the header, decoded as Latin-1. It is resolved by RFC 3986, but dot segments are removed only
    from relative paths. Spaces, backslashes and bytes beyond ASCII in path and query are percent-encoded.
    """
    given = _split(location.strip(" \t"))
    path, query = _quote_bytes(given.path), None if given.query is None else _quote_bytes(given.query)
    if given.scheme is not None:
        parts = _Parts(given.scheme, _utf8(given.authority), path, query)
    elif given.authority is not None:
        parts = _Parts(_split(base).scheme, _utf8(given.authority), path, query)
    else:
        parts = _resolve(_split(base), path, query)
    url = "".join(
        (
            "" if parts.scheme is None else f"{parts.scheme}:",
            "" if parts.authority is None else f"//{parts.authority}",
            parts.path,
            parts.query or "",
        )
    )
    parse(url)
    return url


def _split(url: str) -> _Parts:
    match = _PARTS.fullmatch(url)
    assert match is not None, "every string matches"  # noqa: S101 - for the type checker
    return _Parts(match[1], match[2], match[3], match[4])


def _resolve(base: _Parts, path: str, query: str | None) -> _Parts:
    if not path:
        return base._replace(query=base.query if query is None else query)
    if not path.startswith("/"):
        directory = base.path.rpartition("/")[0]
        path = _without_dot_segments(f"{directory}/{path}")
    return base._replace(path=path, query=query)


def _without_dot_segments(path: str) -> str:
    """Remove dot segments (RFC 3986, 5.2.4) from a path that begins with a slash."""
    segments = path.split("/")[1:]
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _ascii(text: str) -> str:
    return text if text.isascii() else quote(text, safe=_PRINTABLE)


def _quote_bytes(text: str) -> str:
    """Percent-encode spaces, backslashes and bytes beyond ASCII. Control characters stay, for `parse` to refuse."""
    return re.sub(r"[ \\\x80-\xff]", lambda match: f"%{ord(match[0]):02X}", text)


def _utf8(authority: str | None) -> str | None:
    """Decode the authority of a `Location` header, which was decoded as Latin-1, as UTF-8."""
    try:
        return authority and authority.encode("latin-1").decode()
    except UnicodeError as error:
        raise InvalidUrl(_NO_VALID_HOST) from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _read_port(text: str) -> int:
    match = _PORT.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= 65535:
        raise InvalidUrl("the port of the URL must be between 1 and 65535")
    if int(match[1]) in _OTHER_PROTOCOLS:
        raise InvalidUrl("the port of the URL belongs to another protocol than HTTP")
    return int(match[1])


def _read_ipv4(text: str) -> str:
    try:
        return str(IPv4Address(socket.inet_aton(text)))
    except OSError as error:
        raise InvalidUrl("the host of the URL must be an IPv4 address, because it ends in a number") from error


def _read_ipv6(text: str) -> str:
    if "%" in text:
        raise InvalidUrl("the IPv6 address in the URL must not have a zone")
    try:
        return str(IPv6Address(text))
    except ValueError as error:
        raise InvalidUrl(_NO_VALID_HOST) from error


def _encode_name(name: str) -> str:
    """Encode a host name with characters beyond ASCII by UTS 46, non-transitional. Raise `InvalidUrl`.

    Characters that map to ASCII, such as full-width digits and ideographic full stops, are refused: they make one host look
    like another.
    """
    try:
        for character in name:
            if not character.isascii() and idna.uts46_remap(character, std3_rules=False).isascii():
                raise InvalidUrl("the host of the URL must not contain characters that map to ASCII, such as full-width digits")
        labels = idna.uts46_remap(name, std3_rules=False).split(".")
        return ".".join(label if label.isascii() else idna.alabel(label).decode() for label in labels)
    except idna.IDNAError as error:
        raise InvalidUrl("the host of the URL must be a name that IDNA can encode") from error
