"""The metrics of a service that has run jobs, as a real Prometheus sees them."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import requests

from tests.helpers.fileserver import FileServer
from tests.helpers.prometheus import Prometheus, promtool, scraping
from tests.helpers.receiver import Answer, Receiver
from tests.helpers.service_processes import Service
from tests.helpers.waiting import wait_for
from tests.project.test_grafana import RULES, documented, expressions, metrics_in, rules

pytestmark = [pytest.mark.engine, pytest.mark.any_engine, pytest.mark.timeout(240)]

KEY = "a key of the test"
LIMIT_ALL = """
from orchestrator_site.base.access.models import Namespace
limits = ("max_running", "max_cpu_millis", "max_memory_mib", "max_undecided")
Namespace.objects.update_or_create(name="default", defaults=dict.fromkeys(limits, 100_000))
"""
OF_USAGE = {"job_cpu_seconds_total", "job_peak_memory_ratio"}  # only where that can be measured


@pytest.fixture(scope="module")
def metrics_port(running: Service) -> int:
    """The port of the metrics; in production their process has to be started."""
    if "embedded" not in running.processes:
        running.start("metrics")
    port = int(running.environment["METRICS_PORT"])
    wait_for(lambda: exposed(port), 60, "the metrics", step=0.1)
    return port


@pytest.fixture(scope="module")
def prometheus(
    running: Service, metrics_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Prometheus, list[str]]]:
    """A Prometheus that has seen jobs of all kinds, of a namespace with limits, and the ids of the jobs."""
    running.manage("shell", "-c", LIMIT_ALL, env=running.environment)
    with scraping(metrics_port, tmp_path_factory.mktemp("scraped") / "prometheus", RULES) as prometheus:
        wait_for(lambda: prometheus.query('up{job="orchestrator"} == 1'), 30, "the first scrape", step=0.2)
        yield prometheus, load(running)


def exposed(port: int) -> str:
    """Return the metrics; empty while nothing answers."""
    try:
        return requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    except requests.ConnectionError:
        return ""


def load(service: Service) -> list[str]:
    """Run jobs with files and events, one of which fails, and whose first event has to be sent twice. Return their ids."""
    with Receiver() as receiver, FileServer() as files:
        receiver.will(Answer(500))
        callback = {"url": receiver.url, "key": KEY}
        download = {"type": "download", "path": "in", "url": files.serve("/in", b"content")}
        upload = {"type": "upload", "path": "in", "url": files.url("/out")}
        jobs = [
            service.post_job(command="true", callback=callback, inputs=[download], outputs=[upload]),
            service.post_job(command="exit 3", callback=callback),
        ]
        for job in jobs:
            service.wait_complete(job)
        completed = [f"orchestrator.job.complete {job}" for job in jobs]
        wait_for(lambda: {f"{event['type']} {event['subject']}" for event in receiver.events} >= set(completed), 60, "all events")
    service.request("GET", "/no-such-page")
    return jobs


def test_promtool_finds_no_fault(running: Service, metrics_port: int) -> None:
    assert promtool("check", "metrics", text=exposed(metrics_port)) == ""


def test_every_metric_is_documented_and_has_no_id_in_it(prometheus: tuple[Prometheus, list[str]], metrics_port: int) -> None:
    _, jobs = prometheus

    text = exposed(metrics_port)

    assert set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)) == documented()
    assert not any(job in text for job in jobs)


def test_jobs_are_counted_once(prometheus: tuple[Prometheus, list[str]]) -> None:
    server, jobs = prometheus

    def value(expression: str) -> float:
        return sum(float(series["value"][1]) for series in server.query(expression))

    wait_for(lambda: value("jobs_total") == len(jobs), 30, "a scrape after the jobs", step=0.2)
    assert value('jobs_total{image="alpine:latest"}') == len(jobs)
    wait_for(lambda: value("job_duration_seconds_count") == len(jobs), 30, "a scrape after their end", step=0.2)
    assert value('job_duration_seconds_count{success="false"}') == 1
    assert value('job_errors_total{reason="exit_code"}') == value("job_errors_total") == 1
    wait_for(lambda: value('transfer_bytes_total{direction="out"}') == len(b"content"), 30, "a scrape after its output", step=0.2)
    assert value('transfer_bytes_total{direction="in"}') == len(b"content")
    assert value('dispatcher_failed_total{reason="5xx"}') == 1
    not_found = 'http_request_duration_seconds_count{path="other",status="404"}'
    wait_for(lambda: value(not_found) == 1, 30, "a scrape after the last request", step=0.2)


def test_what_the_jobs_have_used_is_added_up(running: Service, prometheus: tuple[Prometheus, list[str]]) -> None:
    server, jobs = prometheus
    used = [running.get_job(job)["usage"].get("cpuSeconds") for job in jobs]
    if None in used:
        pytest.skip("the usage of this engine's containers is unknown")

    def value(expression: str) -> float:
        return sum(float(series["value"][1]) for series in server.query(expression))

    wait_for(lambda: value("job_peak_memory_ratio_count") == len(jobs), 30, "a scrape after their end", step=0.2)
    assert value('job_cpu_seconds_total{image="alpine:latest"}') == pytest.approx(sum(used))
    assert value('job_peak_memory_ratio_bucket{image="alpine:latest",le="1.0"}') == len(jobs)


def test_each_panel_and_each_rule_finds_its_metrics(running: Service, prometheus: tuple[Prometheus, list[str]]) -> None:
    server, jobs = prometheus
    usage_is_known = "cpuSeconds" in running.get_job(jobs[0])["usage"]

    def finds_something(asked: str) -> bool:
        return bool(server.query(asked))

    for expression in expressions():
        if not usage_is_known and OF_USAGE & metrics_in(expression):
            continue
        # A comparison that does not hold is an empty result: the value that is compared must be there.
        asked = re.sub(r" (?:>|==) [\d.]+(?= and| or|\s*\)|$)", "", " ".join(expression.split()))
        asked = asked.replace("$job", "orchestrator").replace("$__rate_interval", "5m")
        wait_for(partial(finds_something, asked), 30, asked, step=0.2)  # a rate needs two scrapes


def test_the_rules_are_evaluated(prometheus: tuple[Prometheus, list[str]]) -> None:
    server, _ = prometheus

    def health() -> set[str]:
        return {rule["health"] for group in server.get("rules")["groups"] for rule in group["rules"]}

    wait_for(lambda: health() == {"ok"}, 30, "all rules to be evaluated", step=0.2)
    assert len(server.get("rules")["groups"][0]["rules"]) == len(rules())


def test_a_lost_database_raises_its_alert_and_the_counts_are_still_there(tmp_path: Path) -> None:
    # Given the metrics of a service whose database does not exist
    service = Service(tmp_path, "", "")
    try:
        service.start("metrics")
        with scraping(int(service.environment["METRICS_PORT"]), tmp_path / "prometheus", RULES) as other:
            # I expect the alert to wait for the minute that it has to last
            wait_for(lambda: other.alerts() == {"OrchestratorDatabaseDown"}, 60, "the alert", step=0.2)
            assert other.query("http_requests_total")
    finally:
        service.stop()
