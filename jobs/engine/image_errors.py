"""Explains in fixed sentences why an image cannot be used.

An engine's message about a failed pull quotes the server that answered: a registry, or any other at the address that the
image names. Nothing of it is shown to users, so a closed port reads like one on which something else listens.
See docs/adr/0013-image-pulls-are-guarded.md.
"""

import re
from typing import Final

from jobs.engine.pullable_reference import Reference

_MAX_LENGTH: Final = 4096  # of a message; the rest is ignored

_NOT_ON_ENGINE: Final = "the image {image} is not on the engine"
_NEVER_PULLED: Final = "the image {image} is not on the engine, and the pull policy is never"
_NOT_FOUND: Final = "the image {image} was not found, or pulling it is not allowed"
_NEEDS_CREDENTIALS: Final = "the registry of {image} refused the worker's credentials, or the worker has none for it"
_TOO_MANY_REQUESTS: Final = "the registry of {image} refused the pull because of too many requests"
_NO_PLATFORM: Final = "the image {image} does not exist for the platform of the engine"
_UNREACHABLE: Final = "the registry of {image} cannot be reached, or does not answer as a registry does"
_NOT_ALLOWED: Final = "the registry of {image} resolves to a non-public address that is not in EGRESS_ALLOW"

# Beginnings of messages that continue with text chosen by the registry, or by a web page.
_BEGINNINGS: Final = {
    "error parsing http": _UNREACHABLE,
    "unknown: ": _UNREACHABLE,
    "unsupported: ": _UNREACHABLE,
    "toomanyrequests: ": _TOO_MANY_REQUESTS,
    "manifest for ": _NOT_FOUND,
    "repository ": _NOT_FOUND,
    "pull access denied": _NOT_FOUND,  # Docker Hub's answer for an image that does not exist
    "unauthorized: ": _NEEDS_CREDENTIALS,
    "denied: ": _NEEDS_CREDENTIALS,
}
_BEFORE_QUOTES: Final = ("malformed ", "server message: ")  # what follows is chosen by the server, too

# More such words, for the search for the engine's own text: a server also chooses the text of its status line, the names in
# its certificate, and where it redirects to.
_BEFORE_SERVER_TEXT: Final = (*_BEFORE_QUOTES, "unexpected http status", "unexpected status", "x509: ")
_SERVER_TEXT: Final = re.compile(r"https?://\S*+|\blookup \S++")

_MEANINGS: Final = (
    ("429 too many requests", _TOO_MANY_REQUESTS),
    ("no matching manifest", _NO_PLATFORM),
    ("no match for platform", _NO_PLATFORM),
    ("pull access denied", _NOT_FOUND),
    (": not found", _NOT_FOUND),
    ("no basic auth credentials", _NEEDS_CREDENTIALS),
    ("authorization failed", _NEEDS_CREDENTIALS),
    ("401 unauthorized", _NEEDS_CREDENTIALS),
    ("403 forbidden", _NEEDS_CREDENTIALS),
)


def explain(message: str, image: str) -> str:
    """Return a sentence for users about the failed pull of `image`, given the engine's message."""
    text = message[:_MAX_LENGTH].lower()
    for beginning, meaning in _BEGINNINGS.items():
        if text.startswith(beginning):
            return meaning.format(image=image)
    for words in _BEFORE_QUOTES:
        text = text.partition(words)[0]
    for words, meaning in _MEANINGS:
        if words in text:
            return meaning.format(image=image)
    return unreachable(image)


def is_final(message: str) -> bool:
    """Return whether the engine's message about a failed pull says that another one would fail as well."""
    return explain(message, "{image}") in (_NOT_FOUND, _NEEDS_CREDENTIALS, _NO_PLATFORM)


def engine_text(message: str, reference: Reference) -> str:
    """Return the part of a message, in lower case, that neither a server nor the name of the image can have chosen."""
    text = message[:_MAX_LENGTH].lower()
    if text.startswith(tuple(_BEGINNINGS)):
        return ""
    for words in _BEFORE_SERVER_TEXT:
        text = text.partition(words)[0]
    text = _SERVER_TEXT.sub("", text)
    tag = re.split("[:@]", reference.text)[-1]
    for name in (reference.repository, reference.registry, tag):
        text = re.sub(rf"(?<![\w-]){re.escape(name.lower())}(?![\w-])", "", text)
    return text


def not_on_engine(image: str) -> str:
    """Return the sentence for an image that a container needs and the engine does not have."""
    return _NOT_ON_ENGINE.format(image=image)


def never_pulled(image: str) -> str:
    """Return the sentence for an image that the engine does not have and may not pull."""
    return _NEVER_PULLED.format(image=image)


def not_found(image: str) -> str:
    """Return the sentence for an image that its registry does not have."""
    return _NOT_FOUND.format(image=image)


def unreachable(image: str) -> str:
    """Return the sentence for a registry that does not answer, or not as a registry does."""
    return _UNREACHABLE.format(image=image)


def not_allowed(image: str) -> str:
    """Return the sentence for a registry that the egress rules forbid."""
    return _NOT_ALLOWED.format(image=image)
