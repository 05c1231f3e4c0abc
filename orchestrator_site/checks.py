"""What a start can tell of the configuration beyond the syntax of its variables."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning

from orchestrator_site.api_keys import read_keys


def check_api_keys(**_: Any) -> list[CheckMessage]:
    """A key file that is named has to be there; a service that takes no call at all is worth a warning."""
    configuration = settings.CONFIGURATION
    keys: frozenset[bytes] = frozenset()
    if configuration.api_key_file is not None:
        try:
            keys = read_keys(configuration.api_key_file.read_bytes())
        except OSError as error:
            return [Error(f"API_KEY_FILE cannot be read: {error.strerror}", id="orchestrator.E001")]
    if configuration.api_auth_required and not keys:
        return [
            Warning(
                "API_AUTH is required and there is no API key: every call will be 401",
                hint="Put one key per line into a file and name it in API_KEY_FILE.",
                id="orchestrator.W001",
            )
        ]
    return []
