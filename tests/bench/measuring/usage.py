"""What processes use: processor time, memory, and the transactions and connections of their database."""

import os
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import psycopg
import redis
from processes import process_ids, read

_TICKS = os.sysconf("SC_CLK_TCK")
_SESSION, _PARENT = 3, 1  # fields of /proc/<pid>/stat, counted from the state
_TIMES_OF_CHILDREN = slice(13, 15)  # user and system time of the children that have ended, in ticks


class ProcessGroup:
    """Processes, looked up anew for each measurement, because services start and end children."""

    def __init__(self, field: int, values: Iterable[int]) -> None:
        """Mean the processes whose number in this field of /proc/<pid>/stat is one of `values`, and these themselves."""
        self._field = field
        self._values = set(values)

    @classmethod
    def of_sessions(cls, leaders: Iterable[int]) -> Self:
        return cls(_SESSION, leaders)

    @classmethod
    def of_parents(cls, parents: Iterable[int]) -> Self:
        return cls(_PARENT, parents)

    def pids(self) -> list[int]:
        return [pid for pid, fields in _stats().items() if pid in self._values or int(fields[self._field]) in self._values]

    def cpu_seconds(self) -> float:
        """Return the processor time until now, that of ended children included."""
        pids, stats = self.pids(), _stats()
        ended_children = sum(sum(map(int, stats[pid][_TIMES_OF_CHILDREN])) for pid in pids if pid in stats) / _TICKS
        return sum(map(_cpu_seconds, pids)) + ended_children

    def proportional_bytes(self) -> int:
        """Return the memory (PSS): a page that several processes share counts once in all."""
        return sum(_kibibytes(pid, "smaps_rollup", "Pss") for pid in self.pids()) * 1024

    def resident_bytes(self) -> int:
        return sum(_kibibytes(pid, "status", "VmRSS") for pid in self.pids()) * 1024

    def reset_peak(self) -> None:
        """Let `peak_bytes` begin at the memory that is resident now."""
        for pid in self.pids():
            with suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_bytes(self) -> int:
        """Return the sum of the most resident memory that each process had."""
        return sum(_kibibytes(pid, "status", "VmHWM") for pid in self.pids()) * 1024


def engine_processes(docker_host: str) -> ProcessGroup:
    """Return dockerd and its children, by the process that listens on its socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(docker_host.removeprefix("unix://"))
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, _, _ = struct.unpack("3i", credentials)
    return ProcessGroup.of_parents([pid])


class Databases:
    """The PostgreSQL and the Redis of an installation."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self._database_url = database_url
        self._name = urlsplit(database_url).path[1:]
        self._administration_url = urlsplit(database_url)._replace(path="/postgres").geturl()
        with psycopg.connect(self._administration_url) as connection:
            postmaster = int(_stats()[connection.info.backend_pid][_PARENT])
        self.postgresql = ProcessGroup.of_parents([postmaster])
        with closing(redis.Redis.from_url(redis_url)) as client:
            self.redis = ProcessGroup.of_parents([int(client.info("server")["process_id"])])

    def transactions(self) -> int:
        """Return how many transactions there have been in the installation's database."""
        return self._number("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s")

    def connections(self) -> int:
        """Return how many connections to the installation's database are open."""
        return self._number("SELECT count(*) FROM pg_stat_activity WHERE datname = %s")

    def _number(self, statement: str) -> int:
        # Another database, because a transaction in the measured one would count.
        with psycopg.connect(self._administration_url) as connection:
            row = connection.execute(statement.encode(), [self._name]).fetchone()
        assert row is not None
        return int(row[0])


def _stats() -> dict[int, list[str]]:
    """Return the fields of /proc/<pid>/stat after the name, for all processes."""
    found = {pid: read(f"/proc/{pid}/stat").decode(errors="replace").rpartition(") ")[2].split() for pid in process_ids()}
    return {pid: fields for pid, fields in found.items() if fields}


def _cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, to the nanosecond: /proc has ticks of 10 ms, as much as some use in a minute."""
    with suppress(OSError):  # it has ended
        return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3)
    return 0.0


def _kibibytes(pid: int, file: str, name: str) -> int:
    lines = read(f"/proc/{pid}/{file}").decode().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
