"""Django system checks of the configuration, beyond the syntax of its variables."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Warning
from django.db import DatabaseError

from orchestrator_site.base.access import made_keys
from orchestrator_site.base.config.api_key_file import read_keys
from orchestrator_site.base.config.open_api import open_api_warning
from orchestrator_site.base.db import key_rotation


def check_api_keys(**_: Any) -> list[CheckMessage]:
    """Warn if API keys are required and there are none."""
    configuration = settings.CONFIGURATION
    file = configuration.api_key_file
    keys = read_keys(file.read_bytes()) if file is not None else frozenset()
    if configuration.api_auth_required and not keys and not _any_made_key():
        return [
            Warning(
                "API_AUTH is required but there are no API keys: every API request will be answered with 401",
                hint="Set API_KEY_FILE to a file with one key per line, or make a key in the admin.",
                id="orchestrator.W001",
            )
        ]
    return []


def _any_made_key() -> bool:
    with suppress(DatabaseError):  # for example before the first `migrate`
        return made_keys.any_usable()
    return False


def check_open_api(**_: Any) -> list[CheckMessage]:
    """Warn if other machines can call the API without a key."""
    warning = open_api_warning(settings.CONFIGURATION)
    return [Warning(warning, hint="Set API_AUTH to required, or HOST to 127.0.0.1.", id="orchestrator.W003")] if warning else []


def check_secrets(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Warn if the oldest or the newest secrets cannot be decrypted. Only for `migrate` and `check --database`."""
    if not databases:
        return []
    try:
        rows = key_rotation.unreadable_ends()
    except DatabaseError:  # for example before the first `migrate`
        return []
    return [
        Warning(
            f"no key in ENCRYPTION_KEYS decrypts {row}",
            hint="Add the key that is missing at the end of ENCRYPTION_KEYS. `manage.py rotate_keys` looks at all rows.",
            id="orchestrator.W002",
        )
        for row in rows
    ]
