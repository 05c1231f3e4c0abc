"""The patterns of IMAGES_ALLOW (docs/configuration.md): which images may run.

A pattern is read like a reference, so `python`, `docker.io/library/python` and `index.docker.io/library/python` are the same.
In each of its parts `*` stands for any number of characters.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from orchestrator_site.base.values.image_references import (
    DEFAULT_TAG,
    INVALID_DIGEST,
    ImageReference,
    MalformedReference,
    read_reference,
    split_reference,
)

_DIGEST_PATTERN = re.compile(r"[a-z0-9:*]+")


@dataclass(frozen=True, slots=True)
class ImagePattern:
    """One pattern. Without a tag and a digest it matches any tag and digest."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    def matches(self, image: ImageReference) -> bool:
        """Return whether the pattern matches an image. A tag next to a digest is ignored, as engines do."""
        if not (_matches(self.registry, image.registry) and _matches(self.repository, image.repository)):
            return False
        if self.digest is not None:
            return image.digest is not None and _matches(self.digest, image.digest)
        if self.tag is not None:
            return image.digest is None and _matches(self.tag, image.tag or DEFAULT_TAG)
        return True


def read_pattern(text: str) -> ImagePattern:
    """Parse a pattern. Raise `ValueError`."""
    parts = split_reference(text)
    if parts.tag is not None and parts.digest is not None:
        raise ValueError("a pattern may have a tag or a digest, not both")
    if parts.digest is not None and not _DIGEST_PATTERN.fullmatch(parts.digest):
        raise ValueError(INVALID_DIGEST)
    read_reference(text.partition("@")[0].replace("*", "0"))  # a digit is valid wherever a `*` is
    return ImagePattern(parts.registry, parts.repository, parts.tag, parts.digest)


def is_allowed(image: str, patterns: Collection[ImagePattern]) -> bool:
    """Return whether one of `patterns` matches, or there are no patterns. An invalid reference is not allowed."""
    if not patterns:
        return True
    try:
        reference = read_reference(image)
    except MalformedReference:
        return False
    return any(pattern.matches(reference) for pattern in patterns)


def _matches(pattern: str, text: str) -> bool:
    """Return whether `pattern` matches the whole text. The leftmost match of each piece is enough: no backtracking."""
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
