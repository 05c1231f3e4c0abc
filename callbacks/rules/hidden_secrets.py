"""Hides a subscription's secrets in the answers of its destination: some servers answer with the request that they were sent."""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import unquote, urlsplit

HIDDEN: Final = "***"

_SHORTEST: Final = 8  # characters: anything shorter may be a word that the answer has for another reason
_SEPARATORS: Final = re.compile(r"[\s&=;,\"]+")


def hide_secrets(answer: str, url: str, headers: Mapping[str, str], keys: Sequence[str]) -> str:
    """Return the answer without the keys, the values of the headers, and the userinfo and query of the URL, or parts of them.

    A secret that the answer has in another encoding is not found: this protects from servers that echo, not from hostile ones,
    which could send it anywhere.
    """
    if len(answer) < _SHORTEST:
        return answer
    found = sorted(set(_spellings(_secrets(url, headers, keys))), key=len, reverse=True)
    for secret in found:
        answer = answer.replace(secret, HIDDEN)
    return _without_cut_secret(answer, found)


def _without_cut_secret(answer: str, secrets: Iterable[str]) -> str:
    """Return the answer without the beginning of a secret at its end, where it was cut."""
    for secret in secrets:
        for length in range(min(len(secret) - 1, len(answer)), _SHORTEST - 1, -1):
            if answer.endswith(secret[:length]):
                return answer[:-length] + HIDDEN
    return answer


def _secrets(url: str, headers: Mapping[str, str], keys: Sequence[str]) -> Iterator[str]:
    yield from keys
    yield from headers.values()
    parts = urlsplit(url)
    yield parts.query
    userinfo, has_userinfo, _ = parts.netloc.rpartition("@")
    if has_userinfo:
        yield userinfo.partition(":")[2]
        yield b64encode(unquote(userinfo).encode()).decode()  # as it was sent


def _spellings(secrets: Iterable[str]) -> Iterator[str]:
    """Yield each secret and its parts, such as the token after `Bearer`, in the ways in which a server may write them."""
    for secret in secrets:
        for part in (secret, *_SEPARATORS.split(secret)):
            for spelling in (part, unquote(part)):
                if len(spelling) >= _SHORTEST:
                    yield spelling
                    yield json.dumps(spelling)[1:-1]
                    yield spelling.replace("/", r"\/")  # as PHP writes it in JSON
