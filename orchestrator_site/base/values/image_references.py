"""Parses image references as container engines do (https://github.com/distribution/reference).

The grammar is what all supported engines accept. Docker 20.10 refuses what later releases accept: an IPv6 address as the
registry, and an upper-case first component without a dot or a port. Its limit of 255 characters includes the registry.
An image id or a digest alone is not a reference, because it names no registry.

Parsing takes linear time: the parts are split first, and no pattern backtracks.
"""

import re
from dataclasses import dataclass
from typing import Final

DOCKER_HUB: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
INVALID_DIGEST: Final = "a digest must be sha256, sha384 or sha512 with hexadecimal digits in lower case"

_MAX_REFERENCE = 1024
_MAX_NAME = 255
_OTHER_DOCKER_HUB = "index.docker.io"
_OFFICIAL = "library/"

_LABEL = r"[a-zA-Z0-9]++(?:-++[a-zA-Z0-9]++)*+"
_REGISTRY = re.compile(rf"{_LABEL}(?:\.{_LABEL})*+(?::[0-9]++)?")
_COMPONENT = r"[a-z0-9]++(?:(?:\.|__|_|-++)[a-z0-9]++)*+"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*+")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}")
_IMAGE_ID = re.compile(r"[a-f0-9]{64}")


class MalformedReference(ValueError):
    """The text is not an image reference; the message says why."""


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image reference. Without a tag and a digest it means the tag `latest`; with both, the tag is ignored."""

    name: str  # as written, without tag and digest
    registry: str  # host and port; `docker.io` if none is written
    repository: str  # with the `library/` that Docker Hub adds
    tag: str | None
    digest: str | None


def read_reference(text: str) -> ImageReference:
    """Parse `text`. Raise `MalformedReference`."""
    if len(text) > _MAX_REFERENCE:
        raise MalformedReference("an image reference must have at most 255 characters before its tag")
    if _IMAGE_ID.fullmatch(text) or _DIGEST.fullmatch(text):
        raise MalformedReference("must be an image reference, not an image id")
    parts = split_reference(text)
    if not _REGISTRY.fullmatch(parts.registry):
        raise MalformedReference("the registry must be a host name or an IPv4 address, optionally with a port")
    if parts.repository != parts.repository.lower():
        raise MalformedReference("the name of an image must be in lower case")
    if not _REPOSITORY.fullmatch(parts.repository):
        raise MalformedReference("must be a Docker image reference")
    if len(parts.registry) + 1 + len(parts.repository) > _MAX_NAME:
        raise MalformedReference(f"the registry and the name must have at most {_MAX_NAME} characters in total")
    if parts.tag is not None and not _TAG.fullmatch(parts.tag):
        raise MalformedReference("a tag must consist of 1 to 128 letters, digits, '_', '.' and '-' and not begin with '.' or '-'")
    if parts.digest is not None and not _DIGEST.fullmatch(parts.digest):
        raise MalformedReference(INVALID_DIGEST)
    return parts


def split_reference(text: str) -> ImageReference:
    """Split `text` into its parts without checking them; registry and repository are normalized."""
    named, at, digest = text.partition("@")
    first, slash, rest = named.partition("/")
    is_registry = slash and (first == "localhost" or "." in first or ":" in first)
    registry, path = (first, rest) if is_registry else (DOCKER_HUB, named)
    repository, colon, tag = path.partition(":")
    name = f"{first}/{repository}" if is_registry else repository
    if registry == _OTHER_DOCKER_HUB:
        registry = DOCKER_HUB
    if registry == DOCKER_HUB and "/" not in repository:
        repository = _OFFICIAL + repository
    return ImageReference(name, registry, repository, tag if colon else None, digest if at else None)
