"""PostgreSQL behind a network that drops everything or breaks: no call waits forever, and the service recovers."""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models.signals import pre_migrate
from psycopg_pool import ConnectionPool, PoolTimeout

from orchestrator_site.base.db import postgresql
from orchestrator_site.base.db.bounded_connections import BoundedConnection, answer_limit
from orchestrator_site.base.intervals import DatabaseIntervals
from tests.helpers.service_processes import Service
from tests.helpers.tcp_proxy import TcpProxy
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.production

INTERVALS = DatabaseIntervals()
JOB = {"image": "alpine:latest"}


@pytest.fixture
def url() -> str:
    url = os.environ.get("DATABASE_URL")
    if not url:
        pytest.skip("needs PostgreSQL: bin/test says where in DATABASE_URL")
    return url


@pytest.fixture
def proxy(url: str) -> Iterator[TcpProxy]:
    with TcpProxy.to(url) as proxy:
        yield proxy


@pytest.fixture
def pool(url: str, proxy: TcpProxy) -> Iterator[ConnectionPool[BoundedConnection]]:
    """Return a pool like that of Django."""
    options = postgresql.options()
    settings = options.pop("pool")
    with ConnectionPool(
        proxy.through(url), check=ConnectionPool.check_connection, kwargs={"autocommit": True, **options}, **settings
    ) as pool:
        yield pool


@contextmanager
def several(pool: ConnectionPool[BoundedConnection], count: int) -> Iterator[list[BoundedConnection]]:
    """Check out `count` connections at the same time."""
    with ExitStack() as stack:
        yield [stack.enter_context(pool.connection()) for _ in range(count)]


def works(pool: ConnectionPool[BoundedConnection]) -> bool:
    try:
        with pool.connection() as connection:
            return connection.cursor().execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


# -- one connection ---------------------------------------------------------------------------------


def test_a_call_without_an_answer_closes_the_connection(url: str, proxy: TcpProxy) -> None:
    # Given a connection in a transaction
    with BoundedConnection.connect(proxy.through(url)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT 1")

        # When the network drops everything
        proxy.partition()

        # I expect a call to fail and the connection to be closed
        with answer_limit(0.3), pytest.raises(psycopg.OperationalError, match=r"no answer within 0\.3 s"):
            cursor.execute("SELECT 2")
        assert connection.closed

    # And the next connection to work once the network does
    proxy.heal()
    with BoundedConnection.connect(proxy.through(url)) as connection:
        assert connection.cursor().execute("SELECT 3").fetchone() == (3,)


def test_a_late_answer_within_the_limit_is_accepted(url: str, proxy: TcpProxy) -> None:
    # Given a query whose answer is delayed
    with BoundedConnection.connect(proxy.through(url)) as connection:
        proxy.partition()
        healing = threading.Timer(0.5, proxy.heal)
        healing.start()

        # When it arrives before the limit, I expect it to be accepted
        with answer_limit(30):
            assert connection.cursor().execute("SELECT 1").fetchone() == (1,)
        healing.join()


def test_large_answers_and_errors_of_the_server_are_unchanged(url: str) -> None:
    with BoundedConnection.connect(url) as connection:
        cursor = connection.cursor()
        assert len(cursor.execute("SELECT repeat('x', 1000) FROM generate_series(1, 20000)").fetchall()) == 20000
        with pytest.raises(psycopg.errors.DivisionByZero):
            cursor.execute("SELECT 1 / 0")
        connection.rollback()
        assert cursor.execute("SELECT 1").fetchone() == (1,)


# -- a pool -----------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_a_pool_recovers_from_a_partition(
    pool: ConnectionPool[BoundedConnection], proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a pool with some connections that were not used for a moment
    monkeypatch.setattr(BoundedConnection, "intervals", replace(INTERVALS, pool_trust=0.0))
    with several(pool, 6) as connections:
        assert len({id(connection) for connection in connections}) == 6

    # When the network drops everything, I expect no connection from the pool
    proxy.partition()
    with pytest.raises(PoolTimeout):
        pool.getconn()

    # And when the network works again, I expect the pool to recover soon
    proxy.heal()
    wait_for(lambda: works(pool), 2 * INTERVALS.pool_check, "the pool to work again")
    with several(pool, postgresql.MAX_CONNECTIONS) as connections:
        assert len({id(connection) for connection in connections}) == postgresql.MAX_CONNECTIONS


@pytest.mark.timeout(60)
def test_a_pool_recovers_from_a_restart_of_the_server(pool: ConnectionPool[BoundedConnection], proxy: TcpProxy) -> None:
    # Given a pool all of whose connections are in use when they are reset
    with several(pool, postgresql.MAX_CONNECTIONS) as connections:
        proxy.cut()
        for connection in connections:
            with pytest.raises(psycopg.OperationalError):
                connection.cursor().execute("SELECT 1")
    with pytest.raises(PoolTimeout):
        pool.getconn()

    # When the server accepts connections again, I expect the pool to recover soon
    proxy.restore()
    wait_for(lambda: works(pool), 2 * INTERVALS.pool_check, "the pool to work again")


def test_a_connection_that_answered_a_moment_ago_is_not_checked(
    pool: ConnectionPool[BoundedConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a pooled connection that has just been used
    checks: list[str] = []
    check = BoundedConnection._bounded

    def count(connection: BoundedConnection, *args: Any) -> Any:
        checks.append("round trip")
        return check(connection, *args)

    assert works(pool)
    monkeypatch.setattr(BoundedConnection, "_bounded", count)

    # When it is used again, I expect round trips for the statement and for the end of the block only
    assert works(pool)
    assert len(checks) == 2

    # When it was not used for a while, I expect another one for the check
    monkeypatch.setattr(BoundedConnection, "intervals", replace(INTERVALS, pool_trust=0.0))
    assert works(pool)
    assert len(checks) == 2 + 3


def test_a_connection_that_the_server_has_closed_is_replaced_however_new_it_is(
    url: str, pool: ConnectionPool[BoundedConnection]
) -> None:
    # Given a pooled connection that has just been used and that the server then closes
    with pool.connection() as connection:
        pid = connection.info.backend_pid
    with psycopg.connect(url, autocommit=True) as administrator:
        administrator.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
    wait_for(lambda: connection._has_unread_bytes, 10, "the server's last message")

    # I expect the next user to get another one
    assert works(pool)


# -- the service --------------------------------------------------------------------------------------


def ready(service: Service, **options: Any) -> tuple[int, str]:
    """Return the status code of `/readyz` and the status of the database in it."""
    answer = service.request("GET", "/readyz", **options)
    return answer.status_code, answer.json()["checks"]["database"]["status"]


def test_requests_are_answered_503_during_a_partition(service: Service, proxy: TcpProxy) -> None:
    # Given a service that has used its database
    service.start("web", DATABASE_URL=proxy.through(service.database_url))
    identity = service.post_job()
    assert ready(service)[1] == "healthy"

    # When the network between them drops everything
    proxy.partition()

    # I expect /readyz to report it and a job not to be accepted, each before a client times out
    assert ready(service) == (HTTPStatus.SERVICE_UNAVAILABLE, "unhealthy")
    answer = service.request("POST", "/v1/jobs", json=JOB)
    assert (answer.status_code, answer.headers["Retry-After"]) == (HTTPStatus.SERVICE_UNAVAILABLE, "2")
    assert answer.json().keys() == {"error"}

    # And the service to recover when the partition ends
    proxy.heal()
    wait_for(lambda: ready(service)[1] == "healthy", INTERVALS.answer, "the database to be healthy")
    assert service.get_job(identity)["status"] == "accepted"
    service.post_job()


def test_readyz_answers_before_a_request_would_give_up(service: Service, proxy: TcpProxy) -> None:
    # Given a service that has used its database
    service.start("web", DATABASE_URL=proxy.through(service.database_url))
    assert ready(service)[1] == "healthy"

    # When the database refuses connections, I expect /readyz to report it before a request would give up waiting for the pool
    proxy.cut()
    assert ready(service, timeout=INTERVALS.pool_wait) == (HTTPStatus.SERVICE_UNAVAILABLE, "unhealthy")


# -- migrations -------------------------------------------------------------------------------------


def limits() -> dict[str, str]:
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    found: dict[str, str] = {}
    with connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"SHOW {name}")
            found[name] = cursor.fetchone()[0]
    return found


@pytest.mark.django_db(transaction=True)
def test_a_migration_has_no_time_limit_but_the_one_on_locks(url: str) -> None:
    # Given the limits of the service
    usual = {"statement_timeout": "15s", "lock_timeout": "10s", "idle_in_transaction_session_timeout": "15s"}
    assert limits() == usual

    # When the database is migrated, I expect other limits, but not on locks
    seen: list[dict[str, str]] = []

    def look(**_: Any) -> None:
        seen.append(limits())

    pre_migrate.connect(look)
    try:
        call_command("migrate", verbosity=0)
    finally:
        pre_migrate.disconnect(look)
    assert seen
    assert all(one == usual | {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0"} for one in seen)

    # And the usual limits after it
    assert limits() == usual
