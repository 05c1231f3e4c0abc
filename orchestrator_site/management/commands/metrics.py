"""`manage.py metrics`, a process of the Procfile."""

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

from orchestrator_site.ops.metrics import serve_metrics


class Command(BaseCommand):
    help = "Serve Prometheus metrics on METRICS_PORT."
    requires_system_checks = ()  # they load the URLs, and with them everything that only `web` needs

    def handle(self, *args: Any, **options: Any) -> None:
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        serve_metrics()
        stopped.wait()
