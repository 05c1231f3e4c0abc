"""Each alert fires in a real Prometheus when its cause happens to a real installation.

The rules are those of `grafana/rules.yml`, but do not wait until the cause has lasted: `grafana/rules_test.yml` tests how long.
What takes a quarter of an hour to become bad is moved into the past.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.helpers.prometheus import Prometheus, scraping
from tests.helpers.receiver import Answer, Receiver
from tests.helpers.service_processes import Service, administer, installation
from tests.helpers.waiting import wait_for
from tests.project.test_grafana import RULES, rules

pytestmark = [pytest.mark.engine, pytest.mark.production, pytest.mark.any_engine, pytest.mark.timeout(300)]

NODE_MIB: Final = 1024
FAILED_REQUESTS: Final = 10  # far more than one of twenty


class Watched(NamedTuple):
    """An installation, and the Prometheus that scrapes it."""

    service: Service
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    directory = tmp_path_factory.mktemp("service")
    with installation(directory) as service:
        for kind in ("web", "deliver", "relay", "metrics"):
            service.start(kind)
        service.start("worker", NODE_MEMORY=f"{NODE_MIB}MiB")
        service.wait_until_ready()
        at_once = directory / "rules.yml"
        at_once.write_text(re.sub(r"\bfor: \w+", "for: 1s", RULES.read_text()))
        with scraping(int(service.environment["METRICS_PORT"]), directory / "prometheus", at_once) as prometheus:
            wait_for(lambda: prometheus.query('up{job="orchestrator"} == 1'), 30, "the first scrape", step=0.2)
            yield Watched(service, prometheus)


# -- the causes, in an order in which none is the cause of an alert that comes later -----------------
@contextmanager
def a_slow_request(watched: Watched) -> Iterator[None]:
    # Given an answer that Prometheus has seen: it measures how a series grows
    path, service = "/v1/jobs", watched.service
    service.request("GET", path)
    series = f'http_request_duration_seconds_count{{path="{path}",status="200"}}'
    wait_for(lambda: watched.prometheus.query(series), 30, "a scrape", step=0.2)

    # When the next one waits for a lock
    with psycopg.connect(service.database_url) as connection:
        connection.execute("LOCK TABLE jobs_job IN ACCESS EXCLUSIVE MODE")
        request = threading.Thread(target=service.request, args=("GET", path))
        request.start()
        began = time.monotonic()
        wait_for(lambda: time.monotonic() - began > 1.8, what="the request to have waited")
    request.join()
    yield


@contextmanager
def no_database(watched: Watched) -> Iterator[None]:
    url, name = os.environ["DATABASE_URL"], urlsplit(watched.service.database_url).path[1:]
    administer(url, "ALTER DATABASE {name} ALLOW_CONNECTIONS false", name=name)
    try:
        with psycopg.connect(url) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        yield
    finally:
        administer(url, "ALTER DATABASE {name} ALLOW_CONNECTIONS true", name=name)


@contextmanager
def failed_requests(watched: Watched) -> Iterator[None]:
    with no_database(watched), ThreadPoolExecutor(FAILED_REQUESTS) as clients:
        requests = [clients.submit(watched.service.request, "GET", "/v1/jobs") for _ in range(FAILED_REQUESTS)]
        assert {request.result().status_code for request in requests} == {503}
    yield
    watched.service.wait_until_ready()


@contextmanager
def a_job_that_fits_nowhere(watched: Watched) -> Iterator[None]:
    with posted(watched.service, cpu=64) as job:
        let_wait(watched.service, job, minutes=20)
        yield


@contextmanager
def a_job_on_a_full_node(watched: Watched) -> Iterator[None]:
    with posted(watched.service, memory=NODE_MIB * 95 // 100, command="sleep 250") as running:
        watched.service.wait_status(running, "running")
        with posted(watched.service, memory=NODE_MIB // 2) as waiting:
            let_wait(watched.service, waiting, minutes=2)
            yield


@contextmanager
def a_job_without_an_image(watched: Watched) -> Iterator[None]:
    with posted(watched.service, image="no-such-image", pullPolicy="never") as job:
        assert watched.service.wait_decided(job)["reason"] == "image_pull"
        yield


@contextmanager
def an_event_that_is_refused(watched: Watched) -> Iterator[None]:
    with receiver_of_jobs(watched.service, Answer(400)) as receiver:
        receiver.wait_for(1)
        earlier = "UPDATE callbacks_event SET expires_at = expires_at - interval '20 minutes' WHERE state = 'pending'"
        watched.service.query(earlier)
        yield


@contextmanager
def an_event_that_is_refused_for_good(watched: Watched) -> Iterator[None]:
    with receiver_of_jobs(watched.service, Answer(410)):
        yield


@contextmanager
def a_receiver_in_trouble(watched: Watched) -> Iterator[None]:
    with receiver_of_jobs(watched.service, Answer(500), jobs=6):
        yield


@contextmanager
def no_metrics(watched: Watched) -> Iterator[None]:
    watched.service.kill("metrics")
    try:
        yield
    finally:
        watched.service.restart("metrics")


@contextmanager
def no_worker(watched: Watched) -> Iterator[None]:
    watched.service.kill("worker")
    try:
        yield
    finally:
        watched.service.restart("worker")


CAUSES: dict[str, Callable[[Watched], AbstractContextManager[None]]] = {
    "OrchestratorHttpSlow": a_slow_request,
    "OrchestratorDatabaseDown": no_database,
    "OrchestratorHttpErrors": failed_requests,
    "OrchestratorJobsWait": a_job_that_fits_nowhere,
    "OrchestratorNodeFull": a_job_on_a_full_node,
    "OrchestratorJobsFail": a_job_without_an_image,
    "OrchestratorEventsWait": an_event_that_is_refused,
    "OrchestratorEventsDead": an_event_that_is_refused_for_good,
    "OrchestratorBreakerOpen": a_receiver_in_trouble,
    "OrchestratorMetricsMissing": no_metrics,
    "OrchestratorNodeDown": no_worker,
}


def test_there_is_a_cause_for_each_alert() -> None:
    assert {rule["alert"] for rule in rules()} == CAUSES.keys()


@pytest.mark.parametrize("alert", CAUSES)
def test_an_alert_fires_for_its_cause(watched: Watched, alert: str) -> None:
    # Given an installation in which that is in order
    wait_for(lambda: alert not in watched.prometheus.alerts("firing"), 30, f"{alert} to be silent", step=0.2)

    # When
    with CAUSES[alert](watched):
        # I expect
        wait_for(lambda: alert in watched.prometheus.alerts("firing"), 90, alert, step=0.2)


# -- parts of the causes -----------------------------------------------------------------------------
@contextmanager
def posted(service: Service, **members: object) -> Iterator[str]:
    """Post a job, and cancel it at the end."""
    job = service.post_job(**({"command": "true"} | members))
    try:
        yield job
    finally:
        service.request("DELETE", f"/v1/jobs/{job}")


def let_wait(service: Service, job: str, minutes: int) -> None:
    """Let an accepted job look as if it had waited for so long."""
    assert service.get_job(job)["status"] == "accepted"
    service.query("UPDATE jobs_job SET created_at = created_at - make_interval(mins => %s) WHERE id = %s", minutes, job)


@contextmanager
def receiver_of_jobs(service: Service, answer: Answer, jobs: int = 1) -> Iterator[Receiver]:
    """Run jobs that report to a receiver that always gives this answer."""
    with Receiver() as receiver:
        receiver.respond = lambda _: answer
        for _ in range(jobs):
            service.post_job(command="true", callback={"url": receiver.url})
        yield receiver
