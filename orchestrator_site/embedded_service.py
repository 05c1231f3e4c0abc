"""All parts of the embedded service but the API, in the process that serves it."""

import logging
import os
import sys
import threading

from django.conf import settings
from django.core.management import call_command
from django.db import connections
from gunicorn.arbiter import Arbiter

from jobs.errors import JobError
from orchestrator_site.ops.metrics import serve_metrics
from orchestrator_site.processes.deliver import DeliverProcess
from orchestrator_site.processes.relay import RelayProcess
from orchestrator_site.processes.runtime import Runtime
from orchestrator_site.processes.worker import WorkerProcess

logger = logging.getLogger(__name__)


class EmbeddedService:
    """The parts of the service that run beside the API."""

    def __init__(self) -> None:
        configuration = settings.CONFIGURATION
        self._runtime = Runtime(DeliverProcess(), RelayProcess(configuration), WorkerProcess(configuration))

    def prepare(self) -> None:
        """Migrate the database, and create the first operator."""
        call_command("migrate", interactive=False, verbosity=0, skip_checks=False)
        call_command("operator")
        sys.stdout.flush()
        connections.close_all()  # that of this thread, which makes no other query

    def start(self) -> None:
        """Start the parts. End the process if its node cannot be used."""
        threading.Thread(target=self._start_parts, name="start", daemon=True).start()
        serve_metrics(settings.CONFIGURATION)

    def _start_parts(self) -> None:
        try:
            self._runtime.start()
        except JobError as error:
            logger.critical("cannot start: %s", error)
            os._exit(Arbiter.APP_LOAD_ERROR)  # the parent then ends too instead of trying forever

    def stop(self) -> None:
        """Hand over the jobs and stop within a few seconds."""
        self._runtime.stop()
