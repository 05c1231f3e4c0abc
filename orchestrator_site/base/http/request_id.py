"""The header with the id of a request: a middleware reads and sets it, and the OpenAPI document describes it."""

from typing import Final

REQUEST_ID_HEADER: Final = "X-Request-Id"
