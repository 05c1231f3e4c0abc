"""The metrics endpoint for Prometheus, which the embedded process serves, too."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest
import requests
from prometheus_client import CollectorRegistry

from orchestrator_site.ops import metrics
from orchestrator_site.web.event_loop import Server
from tests.helpers.service_log import service_log
from tests.helpers.service_processes import Service
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.stateless, pytest.mark.timeout(120)]

HALF_REQUESTS = 200


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path, "", "")
    yield service
    service.stop()


def samples(service: Service) -> dict[str, float]:
    """Return all samples, by their name and labels. Empty while nothing answers."""
    try:
        answer = requests.get(f"http://127.0.0.1:{service.environment['METRICS_PORT']}/metrics", timeout=10)
    except requests.ConnectionError:
        return {}
    lines = [line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


UNREADABLE = ("x", "", "1.x", "\xb2.0", "1" * 5000, "1.0.0 x", "1.0.0.0.0.0")


@pytest.mark.parametrize(
    ("accept", "type_"),
    [
        (PROMETHEUS, "application/openmetrics-text; version=1.0.0"),
        ("text/plain;version=1.0.0", "text/plain; version=1.0.0"),
        ("*/*", "text/plain; version=0.0.4"),
        *((f"text/plain;version={version}", "text/plain; version=0.0.4") for version in UNREADABLE),
        *((f"application/openmetrics-text; version = {version}", "text/plain; version=0.0.4") for version in UNREADABLE),
    ],
)
def test_any_accept_header_is_answered(accept: str, type_: str) -> None:
    types = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics", "HTTP_ACCEPT": accept}
    metrics.application(CollectorRegistry())(environ, lambda _, headers: types.append(dict(headers)["Content-Type"]))
    assert types[0].startswith(type_)


def test_the_counts_of_a_killed_process_stay(service: Service) -> None:
    # Given requests that a process has answered
    service.start("metrics")
    service.start("web")
    wait_for(lambda: samples(service), what="the metrics")
    service.request("GET", "/livez")
    before = samples(service)
    assert before["http_requests_total"] >= 2

    # When it is killed, and another one takes its place
    service.kill("web")
    assert samples(service)["http_requests_total"] == before["http_requests_total"]
    service.start("web")

    # I expect the requests of both
    after = samples(service)
    route = 'http_request_duration_seconds_count{method="GET",path="/livez",status="200"}'
    assert after["http_requests_total"] > before["http_requests_total"]
    assert after[route] > before[route]


def test_the_counts_are_served_while_the_database_does_not_answer(service: Service) -> None:
    # Given a service without a database
    service.start("metrics")

    # I expect the metrics to say so
    found = wait_for(lambda: samples(service), what="the metrics")
    assert (found["database_up"], found["http_requests_total"]) == (0, 0)
    assert "jobs_oldest_seconds" not in found


def test_an_unexpected_error_is_logged_and_does_not_end_the_server(caplog: pytest.LogCaptureFixture) -> None:
    # Given a server that fails once
    outcomes: list[BaseException] = [ValueError("a bug"), SystemExit()]  # the second ends the test

    class Failing:
        def serve(self, _: float) -> None:
            raise outcomes.pop(0)

    # When it serves, I expect it to go on, and the error in the log
    with service_log(caplog) as log, pytest.raises(SystemExit):
        metrics._serve(cast(Server, Failing()), 0.0)
    (line,) = log.about("an unexpected error in the server of the metrics")
    assert "a bug" in line["exception"]


def test_a_port_that_is_taken_is_said_in_a_sentence(service: Service) -> None:
    with socket.create_server(("127.0.0.1", int(service.environment["METRICS_PORT"]))):
        assert service.start("metrics").wait(60) == 1
        service.kill("metrics")

    assert service.log("metrics").startswith("cannot listen on HOST and METRICS_PORT: Address already in use")
    assert service.log("metrics").count("\n") == 1


def test_incomplete_requests_block_no_threads(service: Service) -> None:
    # Given the metrics process, and many clients that stop in the middle of their requests
    process = service.start("metrics")
    port = int(service.environment["METRICS_PORT"])

    def answers() -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).ok
        except requests.ConnectionError:
            return False

    wait_for(answers, what="the metrics")
    with ExitStack() as clients:
        for _ in range(HALF_REQUESTS):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: ")

        # I expect the metrics to be served, and few threads to be used
        assert answers()
        assert len(list(Path(f"/proc/{process.pid}/task").iterdir())) < 10
