"""What became of a pull, in fixed sentences of our own.

What an engine says of a failed pull holds the words of whoever answered: a registry, or any other server at the address that
a job's image names. None of that is shown, and a port that is closed reads like one where something else listens.
"""

import re
from typing import Final

from jobs.engine.pullable_reference import Reference

_LONGEST = 4096  # characters that are looked at

_NOT_FOUND: Final = "the image {image} was not found, or pulling it is not allowed"
_NEEDS_CREDENTIALS: Final = "the registry of {image} refused the worker's credentials, or the worker has none for it"
_TOO_MANY: Final = "the registry of {image} refused the pull because of too many requests"
_NO_PLATFORM: Final = "the image {image} does not exist for the platform of the engine"
_UNREACHABLE: Final = "the registry of {image} could not be reached, or did not answer as a registry does"
_NOT_ALLOWED: Final = "the registry of {image} may not be reached: it has an address that is neither public nor in EGRESS_ALLOW"

# How messages begin that go on with text of the registry's own choice, or of a web page.
_BEGINNINGS: Final = {
    "error parsing http": _UNREACHABLE,
    "unknown: ": _UNREACHABLE,
    "unsupported: ": _UNREACHABLE,
    "toomanyrequests: ": _TOO_MANY,
    "manifest for ": _NOT_FOUND,
    "repository ": _NOT_FOUND,
    "pull access denied": _NOT_FOUND,  # what Docker Hub says of an image that does not exist
    "unauthorized: ": _NEEDS_CREDENTIALS,
    "denied: ": _NEEDS_CREDENTIALS,
}
_QUOTES_FOLLOW: Final = ("malformed ", "server message: ")  # what stands behind is the other end's, too

# The same of what the engine says of itself: a server also chooses the text of its status and the names in its certificate.
_FOREIGN_FOLLOWS: Final = (*_QUOTES_FOLLOW, "unexpected http status", "unexpected status", "x509: ")
_FOREIGN: Final = re.compile(r"https?://\S*+|\blookup \S++")  # a server chooses where it redirects to

_MEANINGS: Final = (
    ("429 too many requests", _TOO_MANY),
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
    """One sentence about the failed pull of `image`, for what an engine said of it."""
    text = message[:_LONGEST].lower()
    for beginning, meaning in _BEGINNINGS.items():
        if text.startswith(beginning):
            return meaning.format(image=image)
    for words in _QUOTES_FOLLOW:
        text = text.partition(words)[0]
    for words, meaning in _MEANINGS:
        if words in text:
            return meaning.format(image=image)
    return unreachable(image)


def engines_own(message: str, reference: Reference) -> str:
    """Return the part of a message that neither a server nor the image's name chose, in lower case: it may tell of the engine."""
    text = message[:_LONGEST].lower()
    if text.startswith(tuple(_BEGINNINGS)):
        return ""
    for words in _FOREIGN_FOLLOWS:
        text = text.partition(words)[0]
    text = _FOREIGN.sub("", text)
    tag = re.split("[:@]", reference.text)[-1]
    for name in (reference.repository, reference.registry, tag):
        text = re.sub(rf"(?<![\w-]){re.escape(name.lower())}(?![\w-])", "", text)
    return text


def not_found(image: str) -> str:
    """The sentence for an image that a registry does not have."""
    return _NOT_FOUND.format(image=image)


def unreachable(image: str) -> str:
    """The sentence for a registry that gives no answer, or one that makes no sense."""
    return _UNREACHABLE.format(image=image)


def not_allowed(image: str) -> str:
    """The sentence for a registry that the egress rules forbid."""
    return _NOT_ALLOWED.format(image=image)
