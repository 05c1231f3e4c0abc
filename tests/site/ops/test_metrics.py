"""The metrics endpoint for Prometheus, which the embedded process serves, too."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.helpers.service_processes import Service
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.stateless, pytest.mark.timeout(120)]

HALF_REQUESTS = 200


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path, "", "")
    yield service
    service.stop()


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
