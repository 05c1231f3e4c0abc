"""The environment of a service that a command starts for itself, whatever is set for the user's own."""

import os
import secrets
import socket
from base64 import urlsafe_b64encode

# Every variable that the service reads (docs/configuration.md), and those that would make Django another one.
SERVICE_VARIABLES = frozenset(
    {
        "PORT",
        "METRICS_PORT",
        "HOST",
        "DATABASE_URL",
        "REDIS_URL",
        "ENGINE",
        "NODE_NAME",
        "NODE_LOST_AFTER",
        "PUBLIC_URL",
        "SECRET_KEY",
        "ENCRYPTION_KEYS",
        "API_KEY_FILE",
        "API_AUTH",
        "JOB_RETENTION",
        "LOG_LIMIT",
        "ENGINE_LOG_LIMIT",
        "PULL_TIMEOUT",
        "TRANSFER_TIMEOUT",
        "TRANSFER_LIMIT",
        "WORKER_THREADS",
        "NODE_CPUS",
        "NODE_MEMORY",
        "CPU_OVERCOMMIT",
        "ORCHESTRATOR_URL",
        "ORCHESTRATOR_API_KEY",
        "EGRESS_ALLOW",
        "CA_BUNDLE",
        "DELIVERIES_PER_HOST",
        "SHUTDOWN_GRACE",
        "DJANGO_SETTINGS_MODULE",
        "PROMETHEUS_MULTIPROC_DIR",
    }
)


def without_service() -> dict[str, str]:
    """This process' environment without what a service reads."""
    return {name: value for name, value in os.environ.items() if name not in SERVICE_VARIABLES}


def random_key() -> str:
    """32 bytes as URL-safe base64, as ENCRYPTION_KEYS wants them."""
    return urlsafe_b64encode(secrets.token_bytes(32)).decode()


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
