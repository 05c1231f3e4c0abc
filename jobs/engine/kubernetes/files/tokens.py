"""The tokens of a job's pod, which a Secret of its own carries."""

import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from jobs.errors import EngineUnavailable

_BYTES: Final = 32
_LENGTH: Final = 2 * _BYTES  # in hexadecimal, as the mover reads it


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the worker shows to the mover, and what the mover shows to the worker.

    The second lets the worker know the mover from a process of the job that has taken its port.
    """

    asked: str = field(repr=False)
    answered: str = field(repr=False)


def new_tokens() -> Tokens:
    """Return the tokens for one pod."""
    return Tokens(secrets.token_hex(_BYTES), secrets.token_hex(_BYTES))


def secret(name: str, tokens: Tokens, labels: Mapping[str, str], owner: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of a Secret with the tokens, which the cluster deletes together with the object `owner` refers to."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": dict(labels), "ownerReferences": [dict(owner)]},
        "immutable": True,
        "stringData": {"asked": tokens.asked, "answered": tokens.answered},
    }


def tokens_in(secret: Mapping[str, Any]) -> Tokens:
    """Return the tokens in a Secret as the cluster returns it. Raise `EngineUnavailable` if there are none."""
    try:
        asked, answered = (base64.b64decode(secret["data"][key], validate=True).decode("ascii") for key in ("asked", "answered"))
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise EngineUnavailable("the Secret of the pod has no tokens") from error
    if len(asked) != _LENGTH or len(answered) != _LENGTH:
        raise EngineUnavailable("the Secret of the pod has invalid tokens")
    return Tokens(asked, answered)
