"""PostgreSQL behind a network that swallows everything or falls apart: nothing waits for ever, and all goes on by itself."""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models.signals import pre_migrate
from psycopg_pool import ConnectionPool, PoolTimeout

from orchestrator_site.base.db import postgresql
from orchestrator_site.base.db.postgresql import BoundedConnection, answer_limit
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
    """A pool as Django makes it."""
    options = postgresql.options()
    settings = options.pop("pool")
    with ConnectionPool(
        proxy.through(url), check=ConnectionPool.check_connection, kwargs={"autocommit": True, **options}, **settings
    ) as pool:
        yield pool


@contextmanager
def several(pool: ConnectionPool[BoundedConnection], count: int) -> Iterator[list[BoundedConnection]]:
    """So many of its connections at once."""
    with ExitStack() as stack:
        yield [stack.enter_context(pool.connection()) for _ in range(count)]


def works(pool: ConnectionPool[BoundedConnection]) -> bool:
    try:
        with pool.connection() as connection:
            return connection.cursor().execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


# -- one connection ---------------------------------------------------------------------------------


def test_a_call_that_is_not_answered_gives_the_connection_up(url: str, proxy: TcpProxy) -> None:
    # Given a connection in a transaction
    with BoundedConnection.connect(proxy.through(url)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT 1")

        # When the network swallows everything
        proxy.partition()

        # I expect a call to fail, and the connection to be closed: nothing else is asked of it
        with answer_limit(0.3), pytest.raises(psycopg.OperationalError, match=r"no answer within 0\.3 s"):
            cursor.execute("SELECT 2")
        assert connection.closed

    # And all to be well with the next one once the network is
    proxy.heal()
    with BoundedConnection.connect(proxy.through(url)) as connection:
        assert connection.cursor().execute("SELECT 3").fetchone() == (3,)


def test_an_answer_that_comes_late_but_in_time_is_taken(url: str, proxy: TcpProxy) -> None:
    # Given a query whose answer is held up
    with BoundedConnection.connect(proxy.through(url)) as connection:
        proxy.partition()
        healing = threading.Timer(0.5, proxy.heal)
        healing.start()

        # When it comes before the limit, I expect it to be as any other
        with answer_limit(30):
            assert connection.cursor().execute("SELECT 1").fetchone() == (1,)
        healing.join()


def test_a_large_answer_and_an_error_of_the_server_are_as_ever(url: str) -> None:
    with BoundedConnection.connect(url) as connection:
        cursor = connection.cursor()
        assert len(cursor.execute("SELECT repeat('x', 1000) FROM generate_series(1, 20000)").fetchall()) == 20000
        with pytest.raises(psycopg.errors.DivisionByZero):
            cursor.execute("SELECT 1 / 0")
        connection.rollback()
        assert cursor.execute("SELECT 1").fetchone() == (1,)


# -- a pool -----------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_a_pool_of_silent_connections_is_well_again_with_the_network(
    pool: ConnectionPool[BoundedConnection], proxy: TcpProxy
) -> None:
    # Given a pool with some connections that are not in use
    with several(pool, 6) as connections:
        assert len({id(connection) for connection in connections}) == 6

    # When the network swallows everything, I expect that nobody gets one of them
    proxy.partition()
    with pytest.raises(PoolTimeout):
        pool.getconn()

    # And when it is well, I expect the pool to be so soon
    proxy.heal()
    wait_for(lambda: works(pool), 2 * INTERVALS.pool_check, "the pool to work again")
    with several(pool, 16) as connections:
        assert len({id(connection) for connection in connections}) == 16


@pytest.mark.timeout(60)
def test_a_pool_whose_connections_are_cut_is_well_again_with_the_server(
    pool: ConnectionPool[BoundedConnection], proxy: TcpProxy
) -> None:
    # Given a pool all of whose connections are in use when they are reset
    with several(pool, 16) as connections:
        proxy.cut()
        for connection in connections:
            with pytest.raises(psycopg.OperationalError):
                connection.cursor().execute("SELECT 1")
    with pytest.raises(PoolTimeout):
        pool.getconn()

    # When the server takes connections again, I expect the pool to have some soon
    proxy.restore()
    wait_for(lambda: works(pool), 2 * INTERVALS.pool_check, "the pool to work again")


# -- the service --------------------------------------------------------------------------------------


def ready(service: Service, **options: Any) -> tuple[int, str]:
    """The status of `/readyz`, and what it says of the database."""
    answer = service.request("GET", "/readyz", **options)
    return answer.status_code, answer.json()["checks"]["database"]["status"]


def test_a_partition_is_a_clean_503_until_it_is_over(service: Service, proxy: TcpProxy) -> None:
    # Given a service that has used its database
    service.start("web", DATABASE_URL=proxy.through(service.database_url))
    identity = service.post_job()
    assert ready(service)[1] == "healthy"

    # When the network between them swallows everything
    proxy.partition()

    # I expect /readyz to say so, and a job not to be taken, each in a time that a client waits
    assert ready(service) == (HTTPStatus.SERVICE_UNAVAILABLE, "unhealthy")
    answer = service.request("POST", "/v1/jobs", json=JOB)
    assert (answer.status_code, answer.headers["Retry-After"]) == (HTTPStatus.SERVICE_UNAVAILABLE, "2")
    assert answer.json().keys() == {"error"}

    # And all to go on by itself when it is over
    proxy.heal()
    wait_for(lambda: ready(service)[1] == "healthy", INTERVALS.answer, "the database to be healthy")
    assert service.get_job(identity)["status"] == "accepted"
    service.post_job()


def test_who_watches_over_a_service_waits_no_longer_than_a_request(service: Service, proxy: TcpProxy) -> None:
    # Given a service that has used its database
    service.start("web", DATABASE_URL=proxy.through(service.database_url))
    assert ready(service)[1] == "healthy"

    # When the database refuses connections, I expect /readyz to say so before the pool would have given a request up
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
def test_a_migration_may_take_long_but_waits_for_no_lock(url: str) -> None:
    # Given what the service is allowed
    usual = {"statement_timeout": "15s", "lock_timeout": "10s", "idle_in_transaction_session_timeout": "15s"}
    assert limits() == usual

    # When the database is migrated, I expect it to be allowed more, but not to have everybody wait behind it
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

    # And what comes after it to be as before
    assert limits() == usual
