"""Image references as Docker reads them (the grammar of github.com/distribution/reference)."""

import re
from dataclasses import dataclass
from typing import Final

from jobs.errors import ImageUnavailable

DOCKER_HUB: Final = "docker.io"

_DOMAIN_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = rf"(?:{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?"
    r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?",
    re.ASCII,
)
_LONGEST_NAME = 255
_LONGEST_REFERENCE = 1024


@dataclass(frozen=True, slots=True)
class Reference:
    """One image. `text` always has a tag or a digest, so that it never means all tags or an image's id."""

    text: str
    registry: str  # host and port, `docker.io` where none is given


def parse_reference(text: str) -> Reference:
    """Read `text`; without tag and digest it means `:latest`, a digest outweighs a tag.

    Raises `ImageUnavailable` where it is malformed: no registry can have such an image.
    """
    match = _REFERENCE.fullmatch(text) if len(text) <= _LONGEST_REFERENCE else None
    if not match or len(match["name"]) > _LONGEST_NAME:
        raise ImageUnavailable(f"{text[:100]!r} is not an image reference")
    suffix = f"@{match['digest']}" if match["digest"] else f":{match['tag'] or 'latest'}"
    return Reference(text=match["name"] + suffix, registry=_registry(match["name"]))


def _registry(name: str) -> str:
    """The part before the first slash, where it looks like a host and not like a user of Docker Hub."""
    first, slash, _ = name.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    return first if is_host else DOCKER_HUB
