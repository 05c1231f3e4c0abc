"""Requests that are generated from the OpenAPI document, to a running service."""

import pytest

from tests.fuzzing import campaign
from tests.fuzzing.documented import DocumentedAttack
from tests.helpers.service_processes import Service

pytestmark = [pytest.mark.engine, pytest.mark.any_engine, pytest.mark.timeout(300)]


def test_the_service_does_what_the_document_says(running: Service) -> None:
    assert not campaign.run("documented", DocumentedAttack(running.url), inputs=400, seconds=60).errors
