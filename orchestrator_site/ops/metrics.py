"""The `/metrics` endpoint on METRICS_PORT, with the metrics of all processes of this machine.

As a program, it is the process `metrics` of the Procfile: without Django and the models, which would take 25 MB.
"""

import logging.config
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from gunicorn.config import Config
from prometheus_client import CollectorRegistry, make_wsgi_app

from orchestrator_site.base.config.configuration import Configuration, load
from orchestrator_site.base.config.variables import ConfigurationError
from orchestrator_site.base.intervals import WebIntervals
from orchestrator_site.base.measurements.process_counts import DIRECTORY
from orchestrator_site.ops.logs import log_configuration
from orchestrator_site.ops.metrics_counts import CountsCollector
from orchestrator_site.ops.metrics_database import DatabaseCollector, database_of
from orchestrator_site.web.connection_table import Limits
from orchestrator_site.web.event_loop import Server

logger = logging.getLogger(__name__)

_LIMITS: Final = Limits(connections=50, long_answers=1)
# A version of a format that is not two to four numbers: prometheus_client fails at it.
_UNREADABLE_VERSION: Final = re.compile(r"version[ \t]*=(?![ \t]*[0-9]{1,3}(?:\.[0-9]{1,3}){1,3}[ \t]*(?:[;,]|\Z))")


def serve_metrics(configuration: Configuration) -> None:
    """Serve metrics from two threads of this process until it ends.

    prometheus_client's own server would start a thread for each connection and keep it as long as the client likes.
    """
    directory = configuration.state_dir / DIRECTORY
    registry = CollectorRegistry()  # not the default one, which has metrics of this process alone
    registry.register(CountsCollector(directory))
    registry.register(DatabaseCollector(database_of(configuration), directory))
    listener = _listen(configuration.host, configuration.metrics_port)
    intervals = WebIntervals()
    server = Server([listener], _gunicorn_settings(), application(registry), _LIMITS, intervals)
    threading.Thread(target=_serve, args=(server, intervals.tick), name="metrics", daemon=True).start()


def application(registry: CollectorRegistry) -> Callable[[dict[str, Any], Any], Any]:
    """Return prometheus_client's WSGI application, which does not see an `Accept` header that it cannot read."""
    answer = make_wsgi_app(registry)

    def answer_readable(request: dict[str, Any], start_response: Any) -> Any:
        if _UNREADABLE_VERSION.search(request.get("HTTP_ACCEPT", "")):
            del request["HTTP_ACCEPT"]
        return answer(request, start_response)

    return answer_readable


def _listen(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address[:2], family=family)


def _gunicorn_settings() -> Config:
    gunicorn_settings = Config()
    gunicorn_settings.set("threads", 1)
    gunicorn_settings.set("forwarder_headers", "")
    return gunicorn_settings


def _serve(server: Server, tick: float) -> None:
    """Serve until the process ends. Nothing else would notice the end of this thread."""
    while True:
        try:
            server.serve(tick)
        except Exception:
            logger.exception("an unexpected error in the server of the metrics")
            time.sleep(tick)


def main() -> None:
    """Serve metrics until SIGINT or SIGTERM."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        configuration = load()
        logging.config.dictConfig(log_configuration(embedded=configuration.embedded, loggers={}))
        serve_metrics(configuration)
    except ConfigurationError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"cannot listen on HOST and METRICS_PORT: {error.strerror or error}")
    stopped.wait()


if __name__ == "__main__":
    main()
