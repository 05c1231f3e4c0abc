"""The `/metrics` endpoint on METRICS_PORT, for all processes of this machine."""

import os
from typing import Any

from django.conf import settings
from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector


def serve_metrics() -> Any:
    """Serve from threads of this process; the server and its thread."""
    configuration = settings.CONFIGURATION
    registry: CollectorRegistry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return start_http_server(configuration.metrics_port, addr=configuration.host, registry=registry)
