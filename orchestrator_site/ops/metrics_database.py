"""Reads from the database what a process cannot count: how much there is now. No restart skews it, and Django is not needed.

Each query reads a bounded number of rows of an index, however many rows its table has.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from prometheus_client.core import GaugeMetricFamily, Metric

from orchestrator_site.base.config.configuration import Configuration
from orchestrator_site.base.intervals import DatabaseIntervals, DeliveryIntervals, MetricsIntervals, WorkerIntervals
from orchestrator_site.base.measurements import image_names

logger = logging.getLogger(__name__)

COUNTED_AT_MOST: Final = 100_000
RECENT_JOBS: Final = 10_000
_MAX_NODES: Final = 1000
_MAX_NAMESPACES: Final = 1000
_MIB: Final = 1024**2

Rows = list[tuple[Any, ...]]


class Dialect(NamedTuple):
    """How a database spells what differs."""

    seconds_since: str  # a column, as a format string


POSTGRESQL: Final = Dialect("EXTRACT(EPOCH FROM STATEMENT_TIMESTAMP() - {})")
SQLITE: Final = Dialect("(JULIANDAY('now') - JULIANDAY({})) * 86400")


def statements(dialect: Dialect) -> dict[str, str]:
    """Return the statements of a scrape, by what they find."""
    # With `=` a planner whose statistics are of a moment when most jobs waited would look through all jobs by their uuid.
    of_status = "status >= 'accepted' AND status <= 'accepted' ORDER BY status DESC, uuid"
    waiting = f"SELECT created_at FROM jobs_job WHERE {of_status} LIMIT 1"  # noqa: S608 - constants
    pending = "SELECT expires_at FROM callbacks_event WHERE state = 'pending' ORDER BY expires_at LIMIT 1"
    created, expires, seen = (dialect.seconds_since.format(name) for name in ("created_at", "expires_at", "seen_at"))
    reserved = f"SELECT namespace, cpu_millis, memory_mib FROM jobs_job WHERE reserved LIMIT {COUNTED_AT_MOST}"  # noqa: S608 - constants
    undecided = f"SELECT namespace FROM jobs_job WHERE status IN ('accepted', 'running') LIMIT {COUNTED_AT_MOST}"  # noqa: S608 - constants
    return {
        "accepted": _count("jobs_job", "status = 'accepted'"),
        "running": _count("jobs_job", "status = 'running'"),
        "oldest_job": f"SELECT {created} FROM ({waiting}) AS oldest",  # noqa: S608 - constants
        "pending": _count("callbacks_event", "state = 'pending'"),
        "oldest_event": f"SELECT {expires} FROM ({pending}) AS oldest",  # noqa: S608 - constants
        "open": _count("callbacks_destination", "open_until IS NOT NULL"),
        "nodes": "SELECT name, cpu_millis_total, cpu_millis_reserved, memory_mib, memory_mib_reserved, drained, "  # noqa: S608 - constants
        f"{seen} FROM jobs_node ORDER BY name LIMIT {_MAX_NODES}",
        "namespaces": "SELECT name, max_running, max_cpu_millis, max_memory_mib, max_undecided "  # noqa: S608 - constants
        f"FROM access_namespace ORDER BY name LIMIT {_MAX_NAMESPACES}",
        "reserved": f"SELECT namespace, COUNT(*), SUM(cpu_millis), SUM(memory_mib) FROM ({reserved}) AS found GROUP BY namespace",  # noqa: S608 - constants
        "undecided": f"SELECT namespace, COUNT(*) FROM ({undecided}) AS found GROUP BY namespace",  # noqa: S608 - constants
    }


IMAGES: Final = (
    f"SELECT image FROM (SELECT image FROM jobs_job ORDER BY uuid DESC LIMIT {RECENT_JOBS}) AS recent "  # noqa: S608 - constants
    f"GROUP BY image ORDER BY COUNT(*) DESC, image LIMIT {image_names.MAX_IMAGES}"
)


def _count(table: str, condition: str) -> str:
    return f"SELECT COUNT(*) FROM (SELECT 1 FROM {table} WHERE {condition} LIMIT {COUNTED_AT_MOST}) AS counted"  # noqa: S608 - constants


def database_of(configuration: Configuration, intervals: MetricsIntervals = MetricsIntervals()) -> "Database":
    """Return the database of the service. Nothing connects to it before the first query."""
    if configuration.embedded:
        return Sqlite(configuration.state_dir / "orchestrator.sqlite3", intervals)
    return Postgresql(configuration.database_url, intervals)


class DatabaseCollector:
    """A collector of Prometheus' client for what is in the database. `database_up` says whether it answered."""

    def __init__(self, database: "Database", image_directory: Path, intervals: MetricsIntervals = MetricsIntervals()) -> None:
        """Names of the images used most are kept in `image_directory`."""
        self._database = database
        self._images = image_directory
        self._intervals = intervals
        self._lock = threading.Lock()
        self._families: list[Metric] = []
        self._read_at = self._images_at = float("-inf")
        self._was_up = True

    def collect(self) -> Iterable[Metric]:
        """Return the metrics, as they are or were a moment ago."""
        with self._lock:
            if time.monotonic() - self._read_at >= self._intervals.fresh:
                self._families = self._read()
                self._read_at = time.monotonic()
            return self._families

    def _read(self) -> list[Metric]:
        try:
            found = {name: self._database.query(text) for name, text in statements(self._database.dialect).items()}
            self._rank_images()
        except self._database.errors as error:
            self._database.close()
            if self._was_up:
                logger.warning("the database does not answer, and its metrics are missing: %s", type(error).__name__)
            self._was_up = False
            return [_gauge("database_up", "Whether the database answered the process metrics.", 0)]
        self._was_up = True
        return [_gauge("database_up", "Whether the database answered the process metrics.", 1), *_families(found)]

    def _rank_images(self) -> None:
        if time.monotonic() - self._images_at < self._intervals.images:
            return
        names = [name for (name,) in self._database.query(IMAGES)]
        self._images_at = time.monotonic()
        with suppress(OSError):  # next time
            image_names.replace_names(self._images, names)


class Database:
    """One connection, which is made when it is needed."""

    dialect: Dialect
    errors: tuple[type[Exception], ...]

    def query(self, statement: str) -> Rows:
        """Return the rows. Raise one of `errors`."""
        raise NotImplementedError

    def close(self) -> None:
        """Forget the connection: the next query makes another."""
        raise NotImplementedError


class Postgresql(Database):
    """PostgreSQL, with short limits and in read-only transactions."""

    dialect = POSTGRESQL

    def __init__(self, url: str, intervals: MetricsIntervals) -> None:
        import psycopg  # 8 MB, which embedded mode saves

        from orchestrator_site.base.db import bounded_connections

        self.errors = (psycopg.Error,)
        self._url = url
        self._query_limit = intervals.query
        self._answer_limit = bounded_connections.answer_limit
        self._class = bounded_connections.BoundedConnection
        limits = replace(DatabaseIntervals(), connect=intervals.connect, statement=intervals.query, lock=intervals.query)
        # A planner that sees most rows match would read the whole table, up to the limit on their number.
        self._parameters = bounded_connections.parameters(
            limits, default_transaction_read_only="on", enable_seqscan="off", jit="off"
        )
        self._connection: Any = None

    def query(self, statement: str) -> Rows:
        if self._connection is None:
            self._connection = self._class.connect(
                self._url, autocommit=True, prepare_threshold=None, application_name="orchestrator metrics", **self._parameters
            )
        with self._answer_limit(self._query_limit + 1), self._connection.cursor() as cursor:
            cursor.execute(statement.encode())
            rows: Rows = cursor.fetchall()
            return rows

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.pgconn.finish()  # without a word to a server that may not answer


class Sqlite(Database):
    """The embedded database, opened for reading only."""

    dialect = SQLITE
    errors = (sqlite3.Error,)

    def __init__(self, path: Path, intervals: MetricsIntervals) -> None:
        self._path, self._timeout = path, intervals.query
        self._connection: sqlite3.Connection | None = None

    def query(self, statement: str) -> Rows:
        if self._connection is None:
            uri = f"{self._path.absolute().as_uri()}?mode=ro"
            self._connection = sqlite3.connect(
                uri, uri=True, timeout=self._timeout, check_same_thread=False, isolation_level=None
            )
        return self._connection.execute(statement).fetchall()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _families(found: dict[str, Rows]) -> Iterable[Metric]:
    """Return the metrics of what the statements have found."""
    active = GaugeMetricFamily("jobs_active", "Jobs that are not decided yet, by status.", labels=["status"])
    for status in ("accepted", "running"):
        active.add_metric([status], found[status][0][0])
    yield active
    yield _gauge("jobs_oldest_seconds", "How long the job waits for its start that waits longest.", _seconds(found["oldest_job"]))
    yield _gauge("dispatcher_queue_size", "Events that are to be delivered.", found["pending"][0][0])
    lifetime = DeliveryIntervals().lifetime
    waited = lifetime + float(found["oldest_event"][0][0]) if found["oldest_event"] else 0.0
    yield _gauge("dispatcher_oldest_seconds", "How long the event waits for its delivery that waits longest.", max(0.0, waited))
    yield _gauge("breakers_open", "Destinations whose breaker is open or half open.", found["open"][0][0])
    yield from _node_families(found["nodes"])
    yield from _namespace_families(found)


def _node_families(nodes: Sequence[tuple[Any, ...]]) -> Iterable[Metric]:
    cpus = GaugeMetricFamily("node_cpus", "Cores that jobs may reserve, with overcommit.", labels=["node"])
    cpus_reserved = GaugeMetricFamily("node_cpus_reserved", "Cores that jobs have reserved.", labels=["node"])
    memory = GaugeMetricFamily("node_memory_bytes", "Memory that jobs may reserve.", labels=["node"])
    memory_reserved = GaugeMetricFamily("node_memory_reserved_bytes", "Memory that jobs have reserved.", labels=["node"])
    up = GaugeMetricFamily("node_up", "Whether a worker of the node is alive and its engine answers.", labels=["node"])
    for name, cpu, cpu_reserved, mib, mib_reserved, drained, unseen in nodes:
        cpus.add_metric([name], cpu / 1000)
        cpus_reserved.add_metric([name], cpu_reserved / 1000)
        memory.add_metric([name], mib * _MIB)
        memory_reserved.add_metric([name], mib_reserved * _MIB)
        is_up = unseen is not None and unseen < WorkerIntervals().healthy_node
        if is_up or cpu_reserved or not drained:  # else it was shut down on purpose
            up.add_metric([name], is_up)
    return cpus, cpus_reserved, memory, memory_reserved, up


def _namespace_families(found: dict[str, Rows]) -> Iterable[Metric]:
    """Return what each namespace uses, and its limits; one without a limit has no value for it."""
    texts = {
        "jobs": ("Jobs that have reserved cpu and memory.", "Jobs that may have reserved cpu and memory at once."),
        "cpus": ("Cores that its jobs have reserved.", "Cores that its jobs may reserve at once."),
        "memory_bytes": ("Memory that its jobs have reserved.", "Memory that its jobs may reserve at once."),
        "undecided_jobs": ("Jobs that are not decided yet.", "Jobs that may be undecided at once."),
    }
    used = {name: GaugeMetricFamily(f"namespace_{name}", texts[name][0], labels=["namespace"]) for name in texts}
    allowed = {name: GaugeMetricFamily(f"namespace_{name}_limit", texts[name][1], labels=["namespace"]) for name in texts}
    scales = {"jobs": 1.0, "cpus": 0.001, "memory_bytes": float(_MIB), "undecided_jobs": 1.0}
    reserved = {namespace: values for namespace, *values in found["reserved"]}
    undecided: dict[str, int] = dict(found["undecided"])
    for namespace, *limits in found["namespaces"]:
        values = [*reserved.get(namespace, (0, 0, 0)), undecided.get(namespace, 0)]
        for name, value, limit in zip(texts, values, limits, strict=True):
            used[name].add_metric([namespace], float(value) * scales[name])
            if limit is not None:
                allowed[name].add_metric([namespace], limit * scales[name])
    return [*used.values(), *allowed.values()]


def _seconds(rows: Rows) -> float:
    return max(0.0, float(rows[0][0])) if rows else 0.0


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
