"""The patterns of IMAGES_ALLOW (docs/configuration.md): which images may run.

A pattern is written like a reference and read like one, so that `python`, `docker.io/library/python` and
`index.docker.io/library/python` are the same. In each of its parts `*` stands for any characters or none.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from orchestrator_site.base.values.image_references import (
    DEFAULT_TAG,
    ImageReference,
    MalformedReference,
    read_reference,
    split_reference,
)

_DIGEST_PATTERN = re.compile(r"[a-z0-9:*]+")


@dataclass(frozen=True, slots=True)
class ImagePattern:
    """One pattern. Without a tag and a digest it takes all of both."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    def matches(self, image: ImageReference) -> bool:
        """Whether the image is one of the pattern's. A tag beside a digest says nothing: the digest decides what runs."""
        if not (_matches(self.registry, image.registry) and _matches(self.repository, image.repository)):
            return False
        if self.digest is not None:
            return image.digest is not None and _matches(self.digest, image.digest)
        if self.tag is not None:
            return image.digest is None and _matches(self.tag, image.tag or DEFAULT_TAG)
        return True


def read_pattern(text: str) -> ImagePattern:
    """Read one pattern. Raises `ValueError`."""
    parts = split_reference(text)
    if parts.tag is not None and parts.digest is not None:
        raise ValueError("a pattern has a tag or a digest, not both")
    if parts.digest is not None and not _DIGEST_PATTERN.fullmatch(parts.digest):
        raise ValueError("a digest is sha256, sha384 or sha512 and its hexadecimal digits in lower case")
    read_reference(text.partition("@")[0].replace("*", "0"))  # a digit may stand wherever a `*` may
    return ImagePattern(parts.registry, parts.repository, parts.tag, parts.digest)


def is_allowed(image: str, patterns: Collection[ImagePattern]) -> bool:
    """Whether one of `patterns` takes that reference, or there are none. What is no reference is not allowed."""
    if not patterns:
        return True
    try:
        reference = read_reference(image)
    except MalformedReference:
        return False
    return any(pattern.matches(reference) for pattern in patterns)


def _matches(pattern: str, text: str) -> bool:
    """Whether `pattern` covers the whole text. For `*` the leftmost place of each piece is enough: no backtracking."""
    first, *pieces = pattern.split("*")
    if not pieces:
        return text == pattern
    last = pieces.pop()
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    position, end = len(first), len(text) - len(last)
    for piece in pieces:
        found = text.find(piece, position, end)
        if found < 0:
            return False
        position = found + len(piece)
    return True
