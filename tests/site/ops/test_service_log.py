"""The log of the service, which clients cannot fill with their errors."""

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client, RequestFactory

from orchestrator_site.browsers.admin_errors import AdminErrorsMiddleware
from orchestrator_site.ops import request_log
from orchestrator_site.ops.log_formats import JSONFormatter
from tests.helpers.api_calls import post_job

pytestmark = pytest.mark.django_db


def expect_only_lines_about_requests(caplog: pytest.LogCaptureFixture) -> None:
    assert {(record.levelname, record.name, record.exc_info) for record in caplog.records} == {
        ("INFO", request_log.__name__, None)
    }


def test_errors_of_clients_are_not_reported(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    # When requests are wrong in several ways
    statuses = [
        client.get("/v1/jobs", headers={"Host": "elsewhere.example"}).status_code,
        client.get("/v1/jobs/no-such-job").status_code,
        client.put("/v1/jobs").status_code,
        client.get("/nothing").status_code,
        post_job(client, cpu=1000).status_code,
    ]

    # I expect errors in the answers, and nothing in the log but the usual line for each request
    assert statuses == [400, 404, 405, 404, 400]
    expect_only_lines_about_requests(caplog)


def test_a_suspicious_request_to_the_admin_is_not_reported(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    # When an operator changes the address of a list to a filter that is not offered
    client.force_login(User.objects.create_superuser("operator"))
    answer = client.get("/admin/jobs/job/?none=x")

    # I expect an error in the answer alone
    assert answer.status_code == 400
    expect_only_lines_about_requests(caplog)


def test_an_invalid_value_in_the_admin_is_reported_without_it_and_without_a_traceback(
    rf: RequestFactory, caplog: pytest.LogCaptureFixture
) -> None:
    # When a request to the admin fails because of a value in it
    try:
        raise ValueError("canary")
    except ValueError as error:
        answer = AdminErrorsMiddleware(lambda _: HttpResponse()).process_exception(rf.get("/admin/jobs/job/"), error)

    # I expect a line that says where that was noticed
    assert answer is not None
    assert answer.status_code == 400
    (record,) = caplog.records
    assert record.exc_info is None
    line = JSONFormatter().format(record)
    assert "test_service_log.py:" in line
    assert "canary" not in line
