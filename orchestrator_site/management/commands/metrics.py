"""`manage.py metrics`: one process of the Procfile."""

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

from orchestrator_site.ops.metrics import serve_metrics


class Command(BaseCommand):
    help = "Serve Prometheus metrics on METRICS_PORT."

    def handle(self, *args: Any, **options: Any) -> None:
        asked = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: asked.set())
        serve_metrics()
        asked.wait()
