"""What a start can tell of the configuration beyond the syntax of its variables."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Warning

from orchestrator_site.base.http.api_keys import read_keys


def check_api_keys(**_: Any) -> list[CheckMessage]:
    """A service that takes no call at all is worth a warning."""
    configuration = settings.CONFIGURATION
    file = configuration.api_key_file
    keys = read_keys(file.read_bytes()) if file is not None else frozenset()
    if configuration.api_auth_required and not keys:
        return [
            Warning(
                "API_AUTH is required and there is no API key: every call will be 401",
                hint="Put one key per line into a file and name it in API_KEY_FILE.",
                id="orchestrator.W001",
            )
        ]
    return []
