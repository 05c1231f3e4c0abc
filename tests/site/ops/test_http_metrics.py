"""Requests are counted by the pattern of their route."""

import time

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory

from orchestrator_site.base import measurements
from orchestrator_site.base.http import long_polls
from orchestrator_site.base.measurements.metrics import HTTP_ERRORS, HTTP_REQUEST_DURATION, HTTP_REQUESTS
from orchestrator_site.ops.http_metrics import HttpMetricsMiddleware

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("method", "url", "labels"),
    [
        ("GET", "/livez", ("GET", "/livez", "200")),
        ("GET", "/v1/jobs", ("GET", "/v1/jobs", "200")),
        ("GET", "/v1/jobs/no-such-job", ("GET", "/v1/jobs/<job_id>", "404")),
        ("GET", "/v1/no-such-thing", ("GET", "other", "404")),
        ("GET", "/no-such-thing", ("GET", "other", "404")),
        ("GET", "/admin/no-such-thing/", ("GET", "other", "302")),
        ("GET", "/static/no-such-thing", ("GET", "other", "404")),
        ("BREW", "/livez", ("other", "/livez", "405")),
    ],
)
def test_a_request_is_counted_by_its_route(client: Client, method: str, url: str, labels: tuple[str, ...]) -> None:
    counted, before = HTTP_REQUESTS.value(), HTTP_REQUEST_DURATION.count(*labels)

    client.generic(method, url)

    assert HTTP_REQUESTS.value() == counted + 1
    assert HTTP_REQUEST_DURATION.count(*labels) == before + 1


def test_an_answer_from_500_on_is_an_error(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    before = HTTP_ERRORS.value()
    client.get("/v1/jobs/no-such-job")
    assert HTTP_ERRORS.value() == before

    client.get("/readyz")  # no worker has connected

    assert HTTP_ERRORS.value() == before + 1


def test_the_time_that_a_long_poll_waits_is_kept_apart() -> None:
    long_polls.waited.seconds = 0.0
    began = time.monotonic()

    long_polls.look_until(lambda: None, lambda _: False, 0.1)

    assert 0.1 <= long_polls.waited.seconds <= time.monotonic() - began


def test_the_duration_of_a_request_is_without_what_it_has_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given requests, the first of which waits, all in the same thread
    durations: list[float] = []
    monkeypatch.setattr(measurements, "request_answered", lambda *arguments: durations.append(arguments[-1]))
    waits = iter([1e9, 0.0])

    def respond(_: HttpRequest) -> HttpResponse:
        long_polls.waited.seconds += next(waits)
        return HttpResponse()

    # When they are measured
    for _ in range(2):
        HttpMetricsMiddleware(respond)(RequestFactory().get("/livez"))

    # I expect what one has waited not to count, for it alone
    waited, other = durations
    assert waited == 0
    assert other > 0
