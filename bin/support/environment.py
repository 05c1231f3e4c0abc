"""The environment for a service that a command starts, independent of the user's own settings."""

import os
import secrets
import socket
from base64 import urlsafe_b64encode
from contextlib import suppress

# Every variable that the service reads (docs/configuration.md), except those that the commands obey as well (STATE_DIR and
# DOCKER_HOST), and those that change how Django runs.
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
        "IMAGES_ALLOW",
        "JOB_NETWORK_DENY",
        "DISK_LIMIT",
        "JOB_RUNTIME",
        "KUBECONFIG",
        "KUBE_CONTEXT",
        "KUBE_NAMESPACE",
        "KUBE_POD_TEMPLATE",
        "KUBE_HELPER_IMAGE",
        "PULL_TIMEOUT",
        "TRANSFER_TIMEOUT",
        "TRANSFER_LIMIT",
        "WORKER_THREADS",
        "WEB_CONCURRENCY",
        "SANDBOXES",
        "NODE_CPUS",
        "NODE_MEMORY",
        "CPU_OVERCOMMIT",
        "ORCHESTRATOR_URL",
        "ORCHESTRATOR_API_KEY",
        "EGRESS_ALLOW",
        "EGRESS_PROXY",
        "CA_BUNDLE",
        "DELIVERIES_PER_HOST",
        "DESTINATION_RATE",
        "DESTINATION_BYTES",
        "KEY_RATE",
        "KEY_BYTES",
        "NAMESPACE_RATE",
        "NAMESPACE_BYTES",
        "SHUTDOWN_GRACE",
        "NO_COLOR",
        "FORCE_COLOR",
        "DJANGO_SETTINGS_MODULE",
    }
)


PORTS = range(20000, 32768)  # below those that Linux and macOS give to outgoing connections
MAX_PORT_TRIES = 100
_given_ports: set[int] = set()


def without_service() -> dict[str, str]:
    """Return this process's environment without the variables that a service reads."""
    return {name: value for name, value in os.environ.items() if name not in SERVICE_VARIABLES}


def random_key() -> str:
    """Return 32 random bytes as URL-safe base64, the format of ENCRYPTION_KEYS."""
    return urlsafe_b64encode(secrets.token_bytes(32)).decode()


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free, and that no outgoing connection takes in the meantime.

    This process gets no port twice: what is to use the first one may not have taken it yet.
    """
    for _ in range(MAX_PORT_TRIES):
        port = secrets.choice(PORTS)
        if port in _given_ports:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given_ports.add(port)
            return port
    raise OSError(f"{MAX_PORT_TRIES} ports were all in use")
