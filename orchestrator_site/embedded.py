"""The embedded mode: the API, worker, deliveries, relay and metrics in one process, on SQLite.

gunicorn's parent process only watches that process, and starts it again if it dies.
"""

import logging
import os
import threading
from typing import Any

from django.conf import settings
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from jobs.errors import JobError
from orchestrator_site import gunicorn as gunicorn_settings
from orchestrator_site.ops.metrics import serve_metrics
from orchestrator_site.processes.deliver import DeliverProcess
from orchestrator_site.processes.relay import RelayProcess
from orchestrator_site.processes.runtime import Runtime
from orchestrator_site.processes.worker import WorkerProcess
from orchestrator_site.web.gunicorn_worker import WebWorker
from orchestrator_site.wsgi import application

logger = logging.getLogger(__name__)


class EmbeddedWorker(WebWorker):
    """The worker class of `web`, with all other parts beside it."""

    def init_process(self) -> None:
        configuration = settings.CONFIGURATION
        self._runtime = Runtime(DeliverProcess(), RelayProcess(configuration), WorkerProcess(configuration))
        threading.Thread(target=self._start, name="start", daemon=True).start()
        serve_metrics(configuration)
        super().init_process()

    def _start(self) -> None:
        try:
            self._runtime.start()
        except JobError as error:
            logger.critical("cannot start: %s", error)
            os._exit(Arbiter.APP_LOAD_ERROR)  # the parent then ends too instead of trying forever

    def handle_exit(self, sig: int, frame: Any) -> None:
        self._hand_over()
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: Any) -> None:
        self._hand_over().join()
        super().handle_quit(sig, frame)

    def _hand_over(self) -> threading.Thread:
        """Hand over the jobs while the last requests are answered; the process ends when both are done."""
        thread = threading.Thread(target=self._runtime.stop, name="stop")
        thread.start()
        return thread


class EmbeddedApplication(BaseApplication):  # type: ignore[misc]
    """gunicorn with one `EmbeddedWorker`."""

    def load_config(self) -> None:
        for name in ("bind", "threads", "timeout", "graceful_timeout", "forwarder_headers", "header_map", "logconfig_dict"):
            self.cfg.set(name, getattr(gunicorn_settings, name))
        self.cfg.set("workers", 1)
        self.cfg.set("when_ready", gunicorn_settings.when_ready)
        self.cfg.set("worker_class", EmbeddedWorker)

    def load(self) -> Any:
        return application
