"""What holds for every test."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections
from docker.transport.unixconn import UnixHTTPConnection
from hypothesis import settings
from urllib3.connectionpool import HTTPConnectionPool

pytest_plugins = [
    "tests.helpers.delivery_fixtures",
    "tests.helpers.engines",
    "tests.helpers.service_processes",
    "tests.helpers.workers",
]

# A shared machine is slow at times: how long an example takes says nothing of its rule.
settings.register_profile("default", deadline=None)
settings.load_profile("default")


def connect_or_close(connection: UnixHTTPConnection) -> None:
    """As docker-py connects, but it forgets the socket where that fails: a warning, in whatever test runs by then."""
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
def django_db_modify_db_settings() -> None:
    """What a power cut would lose does not matter here (bin/test runs PostgreSQL so too)."""
    options = connections.settings["default"]["OPTIONS"]
    if connections["default"].vendor == "sqlite":
        options["init_command"] = options["init_command"].replace("synchronous=FULL", "synchronous=OFF")


def is_in_transaction() -> bool:
    """Whether this thread has a transaction open, besides the one that pytest-django's `db` fixture is."""
    return any(
        not block._from_testcase  # type: ignore[attr-defined]
        for connection in connections.all(initialized_only=True)
        for block in connection.atomic_blocks
    )


@pytest.fixture(autouse=True)
def no_network_in_a_transaction(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever talks to an engine or a peer holds no transaction meanwhile.

    Both doors, `http_client` and the Docker engine, stand on urllib3. The fault is told at the test's end too, because
    code that retries may swallow the exception.
    """
    faults: list[str] = []
    urlopen = HTTPConnectionPool.urlopen

    def guarded(pool: HTTPConnectionPool, method: str, url: str, *args: Any, **options: Any) -> Any:
        if is_in_transaction():
            faults.append(f"{method} {pool.host}{url} inside a transaction")
            raise AssertionError(faults[-1])
        return urlopen(pool, method, url, *args, **options)

    monkeypatch.setattr(HTTPConnectionPool, "urlopen", guarded)
    yield
    assert not faults, faults
