"""The gunicorn worker of `web`: runs the event loop in a process that gunicorn starts, monitors and stops."""

import logging
import os
import time
from typing import Any, Final

from gunicorn.workers.base import Worker

from orchestrator_site.base import open_files
from orchestrator_site.base.intervals import WebIntervals
from orchestrator_site.base.stopping import stopping
from orchestrator_site.web.connection_table import Limits
from orchestrator_site.web.event_loop import Server

logger = logging.getLogger(__name__)

CONNECTIONS: Final = Limits().connections
_OTHER_FILES: Final = 1024  # the rest of the process; an embedded one also has the connections of all its jobs


class WebWorker(Worker):  # type: ignore[misc]
    """A worker that serves HTTP with one thread that waits for clients and a pool of threads for complete requests."""

    _server: Server
    _tick: float  # how often this process reports to gunicorn
    _next_report = 0.0

    def init_process(self) -> None:
        connections = connections_for(CONNECTIONS)
        limits = Limits(connections=connections, pausing=max(1, connections // 2), long_answers=max(1, self.cfg.threads // 4))
        intervals = WebIntervals()
        self._tick = intervals.tick
        self._server = Server(self.sockets, self.cfg, self._application, limits, intervals)
        super().init_process()

    def _application(self, environ: Any, start_response: Any) -> Any:
        return self.wsgi(environ, start_response)  # loaded by `super().init_process`

    def run(self) -> None:
        """Serve until gunicorn stops this process or has died."""
        try:
            self._serve()
        finally:  # also when `handle_quit` has raised SystemExit
            self._server.abandon_requests()

    def _serve(self) -> None:
        while self.alive and self.is_parent_alive():
            self._report()
            self._server.serve(self._tick)
        self._server.stop()
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while not self._server.is_done and time.monotonic() < deadline:
            self._report()
            self._server.serve(self._tick)
        self._server.close()

    def _report(self) -> None:
        """Tell gunicorn once a tick that this process is alive: it takes a change of a file, which may wait for a disk."""
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + self._tick
            self.notify()

    def is_parent_alive(self) -> bool:
        return bool(self.ppid == os.getppid())

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Handle SIGTERM: answer pending requests, then exit."""
        stopping.set()
        super().handle_exit(sig, frame)
        self._server.wake()

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Handle SIGINT and SIGQUIT: exit at once.

        `run` shuts the thread pool down: this handler may have interrupted the server while it holds the pool's lock.
        """
        stopping.set()
        super().handle_quit(sig, frame)


def connections_for(wanted: int) -> int:
    """Raise the limit of open files for `wanted` connections; return how many connections this process may open."""
    needed = wanted + _OTHER_FILES
    files = open_files.raise_limit(needed)
    return wanted if files is None or files >= needed else min(wanted, files // 2)
