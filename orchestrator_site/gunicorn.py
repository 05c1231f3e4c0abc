"""The configuration of gunicorn for `web` (docs/configuration.md)."""

import gc

from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from orchestrator_site.base import measurements
from orchestrator_site.base.config import configuration
from orchestrator_site.base.config.configuration import WEB_THREADS
from orchestrator_site.base.config.open_api import open_api_warning
from orchestrator_site.base.intervals import WebIntervals
from orchestrator_site.ops.logs import log_configuration
from orchestrator_site.web.priority import raise_priority

_configuration = configuration.load()


def on_starting(server: Arbiter) -> None:
    """Raise the priority of this process, which those that it forks inherit. An embedded one also runs jobs.

    Log a warning if other machines can call the API without a key.
    """
    if warning := open_api_warning(_configuration):
        server.log.warning(warning)
    if not _configuration.embedded:
        raise_priority()


def when_ready(_server: Arbiter) -> None:
    """Keep the garbage collector from writing to the memory that the processes share, which are about to be forked."""
    gc.collect()
    gc.freeze()


def post_fork(_server: Arbiter, _worker: Worker) -> None:
    """Let each process keep its metrics in a file of its own."""
    measurements.keep_in(_configuration.state_dir)


bind = f"{_configuration.host}:{_configuration.port}"
worker_class = "orchestrator_site.web.gunicorn_worker.WebWorker"
workers = _configuration.web_processes
threads = WEB_THREADS
control_socket_disable = True  # nothing uses it, and it takes a thread and 1 MB
preload_app = True  # the processes share what the application takes in memory: 40 MB less for each
timeout = round(WebIntervals().watchdog)
graceful_timeout = max(1, round(_configuration.shutdown_grace))
forwarder_headers = ""  # SCRIPT_NAME would let clients bypass a proxy's rules on paths
header_map = "drop"  # X_Forwarded_Proto must not count as X-Forwarded-Proto
logconfig_dict = log_configuration(
    embedded=_configuration.embedded,
    loggers={
        "gunicorn.error": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "gunicorn.access": {"handlers": [], "level": "WARNING", "propagate": False},
    },
)
