"""The API as its OpenAPI document describes it, for tests that make requests from it."""

from functools import cache
from typing import Any

import schemathesis
from django.test import Client

from orchestrator_site.wsgi import application


@cache
def described_api() -> Any:
    """Return schemathesis' view of the document. It searches the whole program for constants whenever it is given one."""
    schema = schemathesis.openapi.from_dict(Client().get("/v1/openapi.json").json())
    schema.app = application
    return schema
