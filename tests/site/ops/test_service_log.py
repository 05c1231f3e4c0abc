"""The log of the service, which clients cannot fill with their errors."""

import pytest
from django.test import Client

from tests.helpers.api_calls import post_job

pytestmark = pytest.mark.django_db


def test_errors_of_clients_are_not_logged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    # When requests are wrong in several ways
    statuses = [
        client.get("/v1/jobs", headers={"Host": "elsewhere.example"}).status_code,
        client.get("/v1/jobs/no-such-job").status_code,
        client.put("/v1/jobs").status_code,
        client.get("/nothing").status_code,
        post_job(client, cpu=1000).status_code,
    ]

    # I expect errors in the answers and nothing in the log
    assert statuses == [400, 404, 405, 404, 400]
    assert not caplog.records
