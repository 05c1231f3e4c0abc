"""Model fields that are encrypted in the database (Fernet: AES-128-CBC with HMAC-SHA256).

The first of `ENCRYPTION_KEYS` encrypts and all of them decrypt, so keys can be rotated.
"""

import json
from functools import lru_cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db import models
from django.db.models import ExpressionWrapper, F


@lru_cache(maxsize=4)
def _cipher(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])


def _current() -> MultiFernet:
    return _cipher(settings.CONFIGURATION.encryption_keys)


class EncryptedTextField(models.TextField):  # type: ignore[type-arg]
    """Encrypted text. It cannot be searched for."""

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        return None if value is None else _current().encrypt(value.encode()).decode()

    def from_db_value(self, value: str | None, _expression: Any, _connection: Any) -> Any:
        return None if value is None else _current().decrypt(value.encode()).decode()


class EncryptedJSONField(EncryptedTextField):
    """A JSON value that is encrypted as a whole."""

    _pyi_private_set_type: Any
    _pyi_private_get_type: Any

    def get_prep_value(self, value: Any) -> Any:
        return super().get_prep_value(None if value is None else json.dumps(value))

    def from_db_value(self, value: str | None, _expression: Any, _connection: Any) -> Any:
        text = super().from_db_value(value, _expression, _connection)
        return None if text is None else json.loads(text)


class _ReadableTextField(EncryptedTextField):
    """Encrypted text as it is read: None if none of the keys decrypts it."""

    def from_db_value(self, value: str | None, _expression: Any, _connection: Any) -> Any:
        try:
            return super().from_db_value(value, _expression, _connection)
        except InvalidToken:
            return None


def if_readable(name: str) -> "ExpressionWrapper[Any]":
    """Return an annotation with an encrypted text, or None if it cannot be decrypted, for pages that must be shown even then."""
    return ExpressionWrapper(F(name), output_field=_ReadableTextField())
