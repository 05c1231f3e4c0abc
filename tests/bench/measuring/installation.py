"""The installation that a benchmark measures: processes of the Procfile on the PostgreSQL and the Redis of the run."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.bench.measuring.usage import ProcessGroup
from tests.helpers.service_processes import Service, drop_template, installation_on
from tests.helpers.waiting import wait_for

PROCFILE = ("web", "worker", "deliver", "relay", "metrics")
CLIENTS = 4  # divides the numbers of jobs that are submitted


@contextmanager
def installation(*kinds: str, **variables: str) -> Iterator[Service]:
    """Provide an installation with these processes running, by default one of each in the Procfile. It is ready."""
    hosts = [os.environ["DOCKER_HOST"]] if "DOCKER_HOST" in os.environ else []
    with (
        tempfile.TemporaryDirectory() as directory,
        installation_on(Path(directory), os.environ["DATABASE_URL"], os.environ["REDIS_URL"], hosts, **variables) as service,
    ):
        drop_template(os.environ["DATABASE_URL"])  # autovacuum visits each database, which is not work of the service
        if "WEB_CONCURRENCY" not in variables:
            del service.environment["WEB_CONCURRENCY"]  # tests need only one process; the default is measured
        for kind in kinds or PROCFILE:
            service.start(kind)
        if not kinds:
            service.wait_until_ready()
        yield service


def processes(service: Service, *names: str) -> ProcessGroup:
    """Return these processes of the installation with their children, by default all."""
    return ProcessGroup.of_sessions(service.processes[name].pid for name in names or service.processes)


def submit(service: Service, count: int, job: Mapping[str, object]) -> None:
    """Post `count` copies of a job, several clients at once."""

    def post(copies: int) -> None:
        with requests.Session() as session:
            session.trust_env = False
            for _ in range(copies):
                session.post(f"{service.url}/v1/jobs", json=job, timeout=60).raise_for_status()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(post, [count // CLIENTS] * CLIENTS))


def warm_up(service: Service, url: str, jobs: int = 8) -> None:
    """Run some jobs at once, so that what is made on first use is there: threads, connections, network, containers."""
    identities = [service.post_job(command=["true"], cpu=0.5, memory=64, callback={"url": url}) for _ in range(jobs)]
    for identity in identities:
        service.wait_complete(identity)
    wait_for(lambda: not undelivered(service), what="all events to be delivered", step=0.1)


def undelivered(service: Service) -> int:
    """Return how many events are still to be delivered."""
    [(count,)] = service.query("SELECT count(*) FROM callbacks_event WHERE state = 'pending'")
    return int(count)
