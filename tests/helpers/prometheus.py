"""A real Prometheus, and its tool: Debian's package `prometheus`, which bin/test installs."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from environment import free_port
from processes import interrupt

from tests.helpers.waiting import wait_for

_STOP_SECONDS = 30


def promtool(*arguments: str, text: str = "") -> str:
    """Run `promtool`, and return what it printed. Fail with that if it finds a fault."""
    if shutil.which("promtool") is None:
        pytest.skip("needs Debian's package prometheus, which bin/test installs")
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Prometheus:
    """A server that scrapes one target every second."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._session = requests.Session()
        self._session.trust_env = False

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of a successful answer of its API."""
        answer = self._session.get(f"{self._url}/api/v1/{path}", params=parameters, timeout=20)
        assert answer.ok, answer.text
        return answer.json()["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an expression: series with a value each."""
        result: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return result

    def alerts(self, *states: str) -> set[str]:
        """Return the names of the alerts that are in one of these states: `pending` (without any, these too) or `firing`."""
        alerts = self.get("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if not states or alert["state"] in states}

    def is_ready(self) -> bool:
        with suppress(requests.ConnectionError):
            return self._session.get(f"{self._url}/-/ready", timeout=5).ok
        return False

    def close(self) -> None:
        self._session.close()


@contextmanager
def scraping(metrics_port: int, directory: Path, rules: Path) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes the metrics of a service under the name `orchestrator`, with these alert rules."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs Debian's package prometheus, which bin/test installs")
    directory.mkdir()
    port = free_port()
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {"job_name": "orchestrator", "static_configs": [{"targets": [f"127.0.0.1:{metrics_port}"]}]},
        ],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    arguments = [
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([program, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    prometheus = Prometheus(port)
    try:
        wait_for(lambda: process.poll() is not None or prometheus.is_ready(), 60, "Prometheus to be ready", step=0.1)
        assert process.poll() is None, (directory / "log").read_text(errors="replace")[-2000:]
        yield prometheus
    finally:
        interrupt(process, _STOP_SECONDS)
        prometheus.close()
