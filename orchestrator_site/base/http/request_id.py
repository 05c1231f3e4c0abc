"""The header with the id of a request: a middleware and the web server read and set it, and the OpenAPI document describes it."""

import re
from typing import Final
from uuid import uuid4

REQUEST_ID_HEADER: Final = "X-Request-Id"
_WELL_FORMED: Final = re.compile(r"[A-Za-z0-9._~+/=:@-]{1,128}")


def accepted_or_new(given: str) -> str:
    """Return the id that the client or a proxy has given to a request, or a new one if it is not well formed."""
    return given if _WELL_FORMED.fullmatch(given) else uuid4().hex
