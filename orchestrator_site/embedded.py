"""`python -m orchestrator_site.embedded`: the API, worker, deliveries, relay and metrics in one process, on SQLite.

gunicorn's parent process only watches that process, and starts it again if it dies. It does not load the service itself: the two
would share little of it, because Python writes to the reference counts of what it uses. That took 15 MB more.
"""

import mmap
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

from gunicorn.app.base import Application

from orchestrator_site.base.config import configuration
from orchestrator_site.base.config.variables import ConfigurationError
from orchestrator_site.base.intervals import EmbeddedIntervals
from orchestrator_site.web.gunicorn_worker import WebWorker

if TYPE_CHECKING:
    from orchestrator_site.embedded_service import EmbeddedService


class EmbeddedWorker(WebWorker):
    """The worker class of `web`, with all other parts beside it."""

    _failed_starts: ClassVar[int] = 0  # in a row, as the parent counts them: each new process knows the number
    _service: "EmbeddedService | None" = None  # until it is about to start

    def __init__(self, *args: Any) -> None:
        """Prepare a process, in the parent."""
        super().__init__(*args)
        self._has_started = mmap.mmap(-1, 1)  # shared with the parent: a byte that is 1 once the service has started

    def load_wsgi(self) -> None:
        """Load and start the service.

        It may migrate its database for longer than gunicorn waits for a report of a worker, but not for the first one.
        """
        self.booted = self.age > 1  # the parent ends if this fails at the start of the service, and tries again later
        self._pause()
        super().load_wsgi()
        from orchestrator_site.embedded_service import EmbeddedService  # after Django, which the application sets up

        service = EmbeddedService()
        service.prepare()
        self._service = service
        self._service.start()
        self._has_started[0] = 1

    @classmethod
    def count_failures(cls, _server: Any, worker: "EmbeddedWorker") -> None:
        """Count a process that has ended before the service had started. gunicorn calls this in the parent."""
        cls._failed_starts = 0 if worker._has_started[0] else cls._failed_starts + 1
        worker._has_started.close()

    def _pause(self) -> None:
        """Wait for longer the more starts in a row have failed. A signal to stop ends the process meanwhile."""
        intervals = EmbeddedIntervals()
        if self._failed_starts:
            time.sleep(min(intervals.restart * 2.0 ** min(self._failed_starts - 1, 20), intervals.restart_max))
            self.notify()  # the start has all the time that gunicorn gives it

    def handle_exit(self, sig: int, frame: Any) -> None:
        self._hand_over()
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: Any) -> None:
        self._hand_over().join()
        super().handle_quit(sig, frame)

    def _hand_over(self) -> threading.Thread:
        """Hand over the jobs while the last requests are answered; the process ends when both are done."""
        if self._service is None:
            sys.exit()
        thread = threading.Thread(target=self._service.stop, name="stop")
        thread.start()
        return thread


class EmbeddedApplication(Application):  # type: ignore[misc]
    """gunicorn with one `EmbeddedWorker`."""

    def load_config(self) -> None:
        self.load_config_from_file("python:orchestrator_site.gunicorn")
        self.cfg.set("workers", 1)
        self.cfg.set("preload_app", False)
        self.cfg.set("worker_class", EmbeddedWorker)
        self.cfg.set("child_exit", EmbeddedWorker.count_failures)

    def load(self) -> Any:
        from orchestrator_site.wsgi import application

        return application


def main() -> None:
    try:
        embedded = configuration.load().embedded
    except ConfigurationError as error:
        sys.exit(str(error))
    if not embedded:
        sys.exit("DATABASE_URL and REDIS_URL must not be set in embedded mode")
    EmbeddedApplication().run()


if __name__ == "__main__":
    main()
