"""Counts what a block of a test costs: calls to an engine, connections, transactions, statements and messages."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.db import connection
from docker.transport.unixconn import UnixHTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from orchestrator_site.base import broker

_BEGINNINGS = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")


@dataclass
class Costs:
    """What was sent: to an engine by all threads of the process, to the database and the broker by this one."""

    calls: list[str] = field(default_factory=list)  # to the engine: method and path, with X in place of a name
    connections: int = 0  # to the engine
    transactions: int = 0  # statements outside of a transaction are one each
    statements: list[str] = field(default_factory=list)  # without those that begin and end transactions
    messages: list[str] = field(default_factory=list)  # names of actors


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Costs]:
    """Count inside the block."""
    costs, this_thread = Costs(), threading.get_ident()
    urlopen, connect = HTTPConnectionPool.urlopen, UnixHTTPConnection.connect
    set_autocommit, enqueue = connection.set_autocommit, broker.broker.enqueue

    def counted_call(pool: HTTPConnectionPool, method: str, url: str, *args: Any, **options: Any) -> Any:
        costs.calls.append(f"{method} {_shape(url)}")
        return urlopen(pool, method, url, *args, **options)

    def counted_connect(unix: UnixHTTPConnection) -> None:
        costs.connections += 1
        connect(unix)

    def counted_begin(autocommit: bool, *args: Any, **options: Any) -> None:
        costs.transactions += not autocommit
        set_autocommit(autocommit, *args, **options)

    def counted_enqueue(message: Any, *args: Any, **options: Any) -> Any:
        if threading.get_ident() == this_thread:
            costs.messages.append(message.actor_name)
        return enqueue(message, *args, **options)

    def counted_statement(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if not sql.startswith(_BEGINNINGS):
            costs.statements.append(sql)
            costs.transactions += not connection.in_atomic_block
        return execute(sql, params, many, context)

    with monkeypatch.context() as patch, connection.execute_wrapper(counted_statement):
        patch.setattr(HTTPConnectionPool, "urlopen", counted_call)
        patch.setattr(UnixHTTPConnection, "connect", counted_connect)
        patch.setattr(connection, "set_autocommit", counted_begin)
        patch.setattr(broker.broker, "enqueue", counted_enqueue)
        yield costs


def _shape(url: str) -> str:
    """Return the path of a call without the version and names; a followed log is a call of its own."""
    path, _, query = re.sub(r".*/v[\d.]+/", "/", url).partition("?")
    path = re.sub(r"^/(containers|images|networks)/(?!create|json)[^/]+", r"/\1/X", path)
    return f"{path}?follow" if "follow=1" in query else path
