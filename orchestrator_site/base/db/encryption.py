"""Model fields that are encrypted in the database (Fernet: AES-128-CBC with HMAC-SHA256).

The first of `ENCRYPTION_KEYS` encrypts and all of them decrypt. A ciphertext begins with the mark of its key, so that
`key_rotation` finds those of other keys without decrypting any (ADR 31).
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db import models
from django.db.models import ExpressionWrapper, F
from django.db.models.query_utils import DeferredAttribute

MARK_LENGTH: Final = 12  # characters: Fernet's version and its eight bytes for a time, in base64

_VERSION: Final = b"\x80"
_NEVER: Final = 1 << 63  # no time has this bit: earlier releases stored the time of the encryption


class Unreadable(Exception):
    """None of ENCRYPTION_KEYS decrypts a value."""

    def __init__(self) -> None:
        super().__init__("a secret cannot be decrypted with ENCRYPTION_KEYS")


class Ciphertext(str):
    """A value as the database has it."""

    __slots__ = ()


class Keys:
    """The keys of this process: encrypts with the first, decrypts with all of them."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        first = urlsafe_b64decode(keys[0])
        digest = sha256(b"the identity of an encryption key: " + first).digest()
        self._identity = int.from_bytes(digest[:8], "big") | _NEVER
        self._ciphers = MultiFernet([Fernet(key) for key in keys])
        self.mark = urlsafe_b64encode(_VERSION + self._identity.to_bytes(8, "big")).decode()

    def encrypt(self, text: str) -> Ciphertext:
        """Encrypt with the first key."""
        return Ciphertext(self._ciphers.encrypt_at_time(text.encode(), self._identity).decode())

    def decrypt(self, ciphertext: str) -> str:
        """Raise `Unreadable` if no key decrypts it."""
        try:
            return self._ciphers.decrypt(ciphertext.encode()).decode()
        except InvalidToken:
            raise Unreadable from None


@lru_cache(maxsize=4)
def _keys(keys: tuple[str, ...]) -> Keys:
    return Keys(keys)


def current_keys() -> Keys:
    """Return those of ENCRYPTION_KEYS."""
    return _keys(settings.CONFIGURATION.encryption_keys)


class _DecryptedWhenRead(DeferredAttribute):
    """An attribute that keeps what the database has until it is read: most of what reads a row needs none of its secrets.

    So a secret that cannot be decrypted stands in the way of what needs it, and of nothing else.
    """

    field: "EncryptedTextField"

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        value = super().__get__(instance, cls)
        if isinstance(value, Ciphertext):
            value = instance.__dict__[self.field.attname] = self.field.decrypted(value)
        return value

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self.field.attname] = value  # without this method, Python would look there first


class EncryptedTextField(models.TextField):  # type: ignore[type-arg]
    """Encrypted text. It cannot be searched for. Queries for values return it encrypted (see `decrypted`)."""

    descriptor_class = _DecryptedWhenRead

    def decrypted(self, value: Any) -> Any:
        """Return the value of a ciphertext. Raise `Unreadable`."""
        return None if value is None else current_keys().decrypt(value)

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        return None if value is None else str(current_keys().encrypt(value))

    def from_db_value(self, value: str | None, _expression: Any, _connection: Any) -> Any:
        return None if value is None else Ciphertext(value)


class EncryptedJSONField(EncryptedTextField):
    """A JSON value that is encrypted as a whole."""

    _pyi_private_set_type: Any
    _pyi_private_get_type: Any

    def decrypted(self, value: Any) -> Any:
        return None if value is None else json.loads(super().decrypted(value))

    def get_prep_value(self, value: Any) -> Any:
        return super().get_prep_value(None if value is None else json.dumps(value))


class _ReadableTextField(EncryptedTextField):
    """Encrypted text as it is read: None if none of the keys decrypts it."""

    def from_db_value(self, value: str | None, _expression: Any, _connection: Any) -> Any:
        try:
            return self.decrypted(value)
        except Unreadable:
            return None


def if_readable(name: str) -> "ExpressionWrapper[Any]":
    """Return an annotation with an encrypted text, or None if it cannot be decrypted, for pages that must be shown even then."""
    return ExpressionWrapper(F(name), output_field=_ReadableTextField())
