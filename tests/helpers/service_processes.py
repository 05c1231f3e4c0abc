"""The processes of the service, on a database of their own, which a test can kill and start again."""

import os
import secrets
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import leftovers
import psycopg
import pytest
import redis
import requests
from environment import free_port, random_key, without_service
from psycopg import sql

from tests.helpers.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "web": ["-m", "gunicorn", "-c", "orchestrator_site/gunicorn.py", "orchestrator_site.wsgi"],
    "worker": ["manage.py", "worker"],
    "deliver": ["manage.py", "deliver"],
    "relay": ["manage.py", "relay"],
    "metrics": ["-m", "orchestrator_site.ops.metrics"],
    "embedded": ["-m", "orchestrator_site.embedded"],
}
DECIDED = ("completed", "failed", "cancelled")
STOP_SECONDS = 20
_POLL_SECONDS = 0.1  # between requests, which take time from the service
_TEMPLATE_LOCK = 0x7E3  # any number


class Service:
    """One installation: a new PostgreSQL database, an empty Redis database, and any processes of the Procfile.

    Without URLs of the two, it is an embedded installation. The output of each process is in `<directory>/<name>.log`.
    Jobs may reach servers of the test on loopback, and the API needs no key.
    """

    def __init__(self, directory: Path, database_url: str, redis_url: str, **variables: str) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.database_url = database_url
        self.redis_url = redis_url
        self.environment = without_service() | {
            "STATE_DIR": str(directory),
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "METRICS_PORT": str(free_port()),
            "PUBLIC_URL": self.url,
            "SECRET_KEY": random_key(),
            "ENCRYPTION_KEYS": random_key(),
            "API_AUTH": "off",
            "EGRESS_ALLOW": "127.0.0.0/8,::1/128,localhost",
            "WEB_CONCURRENCY": "1",
            **variables,
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._kinds: dict[str, tuple[str, dict[str, str]]] = {}
        self._session = requests.Session()
        self._session.trust_env = False

    # -- processes -----------------------------------------------------------------------------
    def start(self, kind: str, name: str | None = None, **variables: str) -> subprocess.Popen[bytes]:
        """Start a process of this kind. `name` distinguishes several of a kind. Wait until `web` or `embedded` answers."""
        name = name or kind
        assert name not in self.processes, f"{name} is already running"
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *COMMANDS[kind]],
                cwd=ROOT,
                env=self.environment | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[name] = process
        self._kinds[name] = (kind, variables)
        if kind in ("web", "embedded"):
            wait_for(lambda: self._is_live(name), what=f"{name} to answer")
        return process

    def start_all(self) -> None:
        """Start `web`, `worker`, `deliver` and `relay`, one of each."""
        for kind in ("web", "worker", "deliver", "relay"):
            self.start(kind)

    def wait_until_ready(self, timeout: float = 60) -> None:
        """Wait until /readyz is healthy. A worker has created its network by then."""
        wait_for(lambda: self.request("GET", "/readyz").ok, timeout, "/readyz to be healthy", step=_POLL_SECONDS)

    def kill(self, name: str) -> None:
        """Send SIGKILL to a process and its children, and wait for the end."""
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def terminate(self, name: str) -> int:
        """Send SIGTERM, wait until the process has ended, and return its exit code."""
        process = self.processes[name]
        process.terminate()
        try:
            return process.wait(STOP_SECONDS)
        finally:
            self.kill(name)

    def restart(self, name: str) -> None:
        """Kill the process if it runs, and start it with the same variables."""
        if name in self.processes:
            self.kill(name)
        kind, variables = self._kinds[name]
        self.start(kind, name, **variables)

    def freeze(self, name: str) -> None:
        """Send SIGSTOP to a process and its children."""
        os.killpg(self.processes[name].pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        os.killpg(self.processes[name].pid, signal.SIGCONT)

    def stop(self) -> None:
        for name, process in self.processes.items():
            with suppress(ProcessLookupError):
                self.thaw(name)
            process.terminate()
        for name in list(self.processes):
            with suppress(subprocess.TimeoutExpired):
                self.processes[name].wait(STOP_SECONDS)
            self.kill(name)
        self._session.close()

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def _is_live(self, name: str) -> bool:
        assert self.processes[name].poll() is None, f"{name} ended: {self.log(name)[-2000:]}"
        with suppress(requests.ConnectionError):
            return self.request("GET", "/livez").ok
        return False

    # -- the API -------------------------------------------------------------------------------
    def request(self, method: str, path: str, *, timeout: float = 40, **options: Any) -> requests.Response:
        return self._session.request(method, self.url + path, timeout=timeout, **options)

    def post_job(self, **members: Any) -> str:
        """Post a job that must be accepted, by default with `alpine:latest`, and return its id."""
        answer = self.request("POST", "/v1/jobs", json={"image": "alpine:latest", **members})
        assert answer.status_code == 202, answer.text
        identity: str = answer.json()["id"]
        return identity

    def get_job(self, identity: str) -> dict[str, Any]:
        answer = self.request("GET", f"/v1/jobs/{identity}")
        assert answer.status_code == 200, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def get_log(self, identity: str) -> list[str]:
        """Return the lines of the job's stored log."""
        return self.request("GET", f"/v1/jobs/{identity}/logs").text.splitlines()

    def wait_status(self, identity: str, *statuses: str, timeout: float = 60) -> dict[str, Any]:
        """Wait until the job has one of these statuses, and return it. Fail at once if it ended with another one."""

        def reached() -> dict[str, Any] | None:
            job = self.get_job(identity)
            if job["status"] not in (*statuses, "accepted", "running"):
                log = self.request("GET", f"/v1/jobs/{identity}/logs").text
                raise AssertionError(f"the job ended: {job}; its log: {log[-2000:]}")
            return job if job["status"] in statuses else None

        return wait_for(reached, timeout, f"{identity} to be {' or '.join(statuses)}", step=_POLL_SECONDS)

    def wait_decided(self, identity: str, timeout: float = 60) -> dict[str, Any]:
        """Wait until the job is completed, failed or cancelled, and return it."""
        return self.wait_status(identity, *DECIDED, timeout=timeout)

    def wait_complete(self, identity: str, timeout: float = 60) -> dict[str, Any]:
        """Wait until the job's last output has been handled, and return it."""

        def complete() -> dict[str, Any] | None:
            job = self.get_job(identity)
            return job if job.get("completedAt") else None

        return wait_for(complete, timeout, f"{identity} to be done", step=_POLL_SECONDS)

    def use_api_key(self, key: str) -> None:
        """Send this API key with every request."""
        self._session.headers["Authorization"] = f"Bearer {key}"

    def cookie(self, name: str) -> str:
        """Return the value of a cookie that the service has set."""
        return self._session.cookies[name]

    def manage(self, *arguments: str, env: dict[str, str]) -> None:
        """Run a management command. Raise `CalledProcessError` if it fails."""
        subprocess.run([sys.executable, "manage.py", *arguments], cwd=ROOT, env=env, check=True, capture_output=True)

    # -- the databases ---------------------------------------------------------------------
    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run an SQL statement in a transaction of its own, and return its rows, if any."""
        with psycopg.connect(self.database_url) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def empty_redis(self) -> None:
        """Delete all messages."""
        with closing(redis.Redis.from_url(self.redis_url)) as client:
            client.flushdb()


def database_named(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def administer(url: str, statement: str, **names: str) -> None:
    """Run a statement that PostgreSQL does not allow in a transaction."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(**{key: sql.Identifier(name) for key, name in names.items()}))


@cache
def migrated_template(url: str) -> str:
    """Migrate one database for all processes of a test run, and return its name: copying it is ten times faster."""
    name = f"template_{os.environ.get('PYTEST_XDIST_TESTRUNUID') or secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [_TEMPLATE_LOCK])  # until the connection is closed
        if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).rowcount:
            unfinished = f"{name}_unfinished"
            administer(url, "CREATE DATABASE {name}", name=unfinished)
            environment = os.environ | {"DATABASE_URL": database_named(url, unfinished)}
            migrate = [sys.executable, "manage.py", "migrate", "--noinput", "--verbosity", "0"]
            subprocess.run(migrate, cwd=ROOT, env=environment, check=True)
            administer(url, "ALTER DATABASE {unfinished} RENAME TO {name}", unfinished=unfinished, name=name)
    return name


def drop_template(url: str) -> None:
    """Drop the migrated database, so that nothing but the installations on this server is left."""
    administer(url, "DROP DATABASE {name}", name=migrated_template(url))
    migrated_template.cache_clear()


@contextmanager
def installation(directory: Path) -> Iterator[Service]:
    """Provide an installation on the PostgreSQL and the Redis of this run, with no process running yet."""
    database_url, redis_url = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
    if not (database_url and redis_url):
        pytest.skip("needs PostgreSQL and Redis (DATABASE_URL and REDIS_URL, which bin/test sets)")
    of_the_tests = urlsplit(redis_url)
    redis_url = of_the_tests._replace(path=f"/{int(of_the_tests.path[1:]) + 1}").geturl()
    with installation_on(directory, database_url, redis_url, [os.environ["DOCKER_HOST"]]) as service:
        yield service


@contextmanager
def installation_on(
    directory: Path, database_url: str, redis_url: str, engines: Sequence[str], **variables: str
) -> Iterator[Service]:
    """Provide an installation on a database of its own. What it leaves on the engines is removed at the end."""
    name = f"service_{uuid.uuid4().hex[:12]}"
    administer(database_url, "CREATE DATABASE {name} TEMPLATE {template}", name=name, template=migrated_template(database_url))
    service = Service(directory, database_named(database_url, name), redis_url, **variables)
    service.empty_redis()
    try:
        yield service
    finally:
        service.stop()
        for (instance,) in service.query("SELECT name FROM jobs_instance"):
            for host in engines:
                leftovers.remove(host, instance)
        administer(database_url, "DROP DATABASE {name} WITH (FORCE)", name=name)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """An installation for one test."""
    with installation(tmp_path) as service:
        yield service
