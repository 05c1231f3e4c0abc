"""A receiver of events in a process of its own, fast enough that it is not what limits a benchmark.

As a program, it answers each POST with 200 and prints a line for each event:

    <time of arrival on the monotonic clock> <type> <job id> <jobsequence> <lines in it> <lines dropped before it>
"""

import asyncio
import re
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Self

from tests.helpers.waiting import wait_for

MODULE = "tests.bench.measuring.event_receiver"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LINES = b'"lines":['
DROPPED = re.compile(rb'"droppedLines":(\d+)')
WITH_LINES = ("orchestrator.job.log", "orchestrator.job.exit")


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event that has arrived."""

    time: float
    type: str
    job: str
    sequence: int
    lines: int
    dropped: int


class EventReceiver:
    """The parent's side: `arrivals` grows while the receiver runs."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen([sys.executable, "-m", MODULE], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}/"
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def clear(self) -> None:
        with self._changed:
            self.arrivals = []

    def wait_for(self, type_: str, job: str, timeout: float = 60) -> Arrival:
        """Wait for an event of this type of this job, and return it. `type_` is without its prefix."""
        wanted = f"orchestrator.job.{type_}"
        with self._changed:
            self._changed.wait_for(lambda: any(one.job == job and one.type == wanted for one in self.arrivals), timeout)
            found = [one for one in self.arrivals if one.job == job and one.type == wanted]
        assert found, f"no {wanted} of {job} after {timeout:g} s"
        return found[0]

    def wait_for_count(self, count: int, timeout: float, type_: str = "") -> list[Arrival]:
        """Wait until this many events have arrived (of one type, without its prefix), without repetitions. Return them."""

        def found() -> list[Arrival] | None:
            # Repetitions are looked for only once there are enough: that takes a tenth of a core from what is measured.
            unique = self.unique(type_) if len(self.arrivals) >= count else []
            return unique if len(unique) >= count else None

        return wait_for(found, timeout, f"{count} events", 0.05)

    def unique(self, type_: str = "") -> list[Arrival]:
        """Return the first arrival of each event."""
        first = {(one.job, one.sequence): one for one in reversed(list(self.arrivals))}
        return [one for one in first.values() if one.type.endswith(type_)]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            time, type_, job, sequence, lines, dropped = line.decode().split(" ")
            arrival = Arrival(float(time), type_, job, int(sequence), int(lines), int(dropped))
            with self._changed:
                self.arrivals.append(arrival)
                self._changed.notify_all()


class _Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._data = bytearray()

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            headers = dict(line.lower().split(b": ", 1) for line in bytes(self._data[:end]).split(b"\r\n")[1:])
            size = end + 4 + int(headers[b"content-length"])
            if len(self._data) < size:
                return
            now = asyncio.get_running_loop().time()
            self._transport.write(ANSWER)
            report(now, headers, bytes(self._data[end + 4 : size]))
            del self._data[:size]


def count_lines(body: bytes) -> int:
    """Return how many `lines` an event has, if none has a quote in it. To parse them would take ten times the CPU."""
    start = body.find(LINES)
    return body.count(b'"', start + len(LINES), body.index(b"]", start)) // 2 if start >= 0 else 0


def report(now: float, headers: dict[bytes, bytes], body: bytes) -> None:
    if b"ce-type" not in headers:
        return  # a request of another program, which is only to be answered
    type_, lines, dropped = headers[b"ce-type"].decode(), 0, 0
    if type_ in WITH_LINES:
        dropped = int(match[1]) if (match := DROPPED.search(body)) else 0
        lines = count_lines(body)
    print(now, type_, headers[b"ce-subject"].decode(), int(headers[b"ce-jobsequence"]), lines, dropped)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    while True:
        await asyncio.sleep(0.02)
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(serve())
