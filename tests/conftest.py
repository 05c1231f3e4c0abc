"""Fixtures and settings of all tests."""

import gc
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from django.conf import settings
from django.core.management.color import no_style
from django.db import connection, connections
from django.test import TransactionTestCase
from docker.transport.unixconn import UnixHTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from whitenoise.middleware import WhiteNoiseMiddleware

from orchestrator_site.base.access import limits, throttles
from orchestrator_site.base.egress.guarded_connections import GuardedConnection

pytest_plugins = [
    "tests.helpers.chromium",
    "tests.helpers.delivery_fixtures",
    "tests.helpers.engines",
    "tests.helpers.clusters",  # uses the one before
    "tests.helpers.fake_clusters",
    "tests.helpers.service_processes",  # before what imports it
    "tests.helpers.kept_connections",
    "tests.helpers.migrated_database",
    "tests.helpers.parallel",
    "tests.helpers.workers",
]

# Each process of pytest rewrites the assertions of all modules, in several seconds, unless it finds the result of an earlier one;
# and the tests start Python hundreds of times.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Almost nothing that is made before the first test becomes garbage: it is not worth looking at, again and again.
gc.disable()

# A shared machine is slow at times: the duration of an example must not fail a test.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.load_profile("default")


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # seldom: it took a twentieth of all processor time
    gc.enable()


def connect_or_close(connection: UnixHTTPConnection) -> None:
    """Connect like docker-py, but close the socket if that fails: otherwise a later test would get a warning."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(connection.timeout)
    try:
        sock.connect(connection.unix_socket)
    except OSError:
        sock.close()
        raise
    connection.sock = sock


UnixHTTPConnection.connect = connect_or_close  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """Turn off fsync: the data need not survive a power failure (bin/test does the same for PostgreSQL)."""
    options = connections.settings["default"]["OPTIONS"]
    if connections["default"].vendor == "sqlite":
        options["init_command"] = options["init_command"].replace("synchronous=FULL", "synchronous=OFF")


@pytest.fixture(scope="session", autouse=True)
def static_files_found_once() -> Iterator[None]:
    """Find static files once: every Django test client makes a middleware of WhiteNoise, which searches for all of them."""
    find = WhiteNoiseMiddleware.add_files_from_finders
    found: dict[str, Any] = {}

    def add_files(middleware: WhiteNoiseMiddleware) -> None:
        if not found:
            find(middleware)
            found.update(middleware.files)
        middleware.files.update(found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WhiteNoiseMiddleware, "add_files_from_finders", add_files)
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_password_hash() -> None:
    """Hash passwords quickly: the default hash is slow on purpose."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(scope="session", autouse=True)
def tables_emptied_quickly() -> Iterator[None]:
    """Empty the tables after a test with transactions of its own, as Django does, but do not make all permissions again.

    That took a third of the processor time of such a test. They stay as the migrations made them, with their content types.
    """
    kept = {"auth_permission", "django_content_type"}

    def empty_tables(_: TransactionTestCase) -> None:
        tables = set(connection.introspection.django_table_names(only_existing=True, include_views=False)) - kept
        connection.ops.execute_sql_flush(connection.ops.sql_flush(no_style(), tables))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", empty_tables)
        yield


@pytest.fixture(autouse=True)
def no_limits_of_other_tests() -> Iterator[None]:
    """Forget the limits of namespaces that the test has read."""
    yield
    limits.kept.forget()


@pytest.fixture(autouse=True)
def whole_allowances() -> Iterator[None]:
    """Let no test be throttled because of others."""
    yield
    throttles.of_this_process.forget()


@pytest.fixture
def limits_in_memory(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the limits of namespaces now, and not again: each process does so every two seconds."""
    monkeypatch.setattr(limits.kept, "_period", float("inf"))
    limits.kept.all()


def is_in_transaction() -> bool:
    """Return whether this thread is in a transaction other than that of pytest-django's `db` fixture."""
    return any(
        not block._from_testcase  # type: ignore[attr-defined]
        for connection in connections.all(initialized_only=True)
        for block in connection.atomic_blocks
    )


@pytest.fixture(autouse=True)
def no_network_in_a_transaction(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that calls an engine or another server in a transaction.

    The Docker engine uses urllib3. The error is raised again at the end of the test, because code that retries may catch the
    exception.
    """
    faults: list[str] = []
    urlopen, exchange = HTTPConnectionPool.urlopen, GuardedConnection.exchange

    def check(request: str) -> None:
        if is_in_transaction():
            faults.append(f"{request} inside a transaction")
            raise AssertionError(faults[-1])

    def guarded_urlopen(pool: HTTPConnectionPool, method: str, url: str, *args: Any, **options: Any) -> Any:
        check(f"{method} {pool.host}{url}")
        return urlopen(pool, method, url, *args, **options)

    def guarded_exchange(connection: GuardedConnection, request: Any, method: str, *args: Any) -> Any:
        check(f"{method} {connection.origin}")
        return exchange(connection, request, method, *args)

    monkeypatch.setattr(HTTPConnectionPool, "urlopen", guarded_urlopen)
    monkeypatch.setattr(GuardedConnection, "exchange", guarded_exchange)
    yield
    assert not faults, faults
