"""A canary for every secret that the service gets: text that must be nowhere but where it is needed.

Tests look for canaries in all that the service shows, stores, logs and sends. `tests/site/test_canaries.py` keeps the tables
complete: a new member of a job or a new setting must be in one of them.
"""

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

CANARY: Final = "canary7f3a"

# The members of a job, as paths in the OpenAPI document.
SECRET_MEMBERS: Final = frozenset(
    {
        "environment",
        "inputs[].content",
        "inputs[].url",
        "inputs[].headers",
        "outputs[].url",
        "outputs[].headers",
        "callback.url",
        "callback.key",
        "callback.headers",
    }
)
SHOWN_MEMBERS: Final = frozenset(
    {
        "id",
        "image",
        "command",
        "cpu",
        "memory",
        "timeoutSeconds",
        "meta",
        "workspace",
        "pullPolicy",
        "network",
        "inputs[].id",
        "inputs[].type",
        "inputs[].path",
        "inputs[].mode",
        "inputs[].encoding",
        "inputs[].sha256",
        "outputs[].id",
        "outputs[].type",
        "outputs[].path",
        "outputs[].method",
        "callback.events",
    }
)


def _password(variable: str) -> Callable[[Mapping[str, str]], Iterable[str | None]]:
    return lambda variables: [urlsplit(variables.get(variable, "")).password]


def _lines(variable: str) -> Callable[[Mapping[str, str]], Iterable[str | None]]:
    return lambda variables: Path(variables[variable]).read_text().split() if variables.get(variable) else []


# The settings (fields of `Configuration`), and what is secret of those that are.
SECRET_SETTINGS: Final[Mapping[str, Callable[[Mapping[str, str]], Iterable[str | None]]]] = {
    "database_url": _password("DATABASE_URL"),
    "redis_url": _password("REDIS_URL"),
    "egress_proxy": _password("EGRESS_PROXY"),
    "secret_key": lambda variables: [variables["SECRET_KEY"]],
    "encryption_keys": lambda variables: variables["ENCRYPTION_KEYS"].split(","),
    "api_key_file": _lines("API_KEY_FILE"),
}
SHOWN_SETTINGS: Final = frozenset(
    {
        "embedded",
        "state_dir",
        "port",
        "metrics_port",
        "host",
        "engine",
        "docker_host",
        "node_name",
        "node_lost_after",
        "public_url",
        "api_auth_required",
        "job_retention",
        "log_limit",
        "engine_log_limit",
        "sandboxes",
        "pull_timeout",
        "transfer_timeout",
        "transfer_limit",
        "worker_threads",
        "web_processes",
        "node_cpus",
        "node_memory",
        "cpu_overcommit",
        "egress_networks",
        "egress_hosts",
        "ca_bundle",
        "deliveries_per_host",
        "destination_rate",
        "destination_bytes",
        "key_rate",
        "key_bytes",
        "namespace_rate",
        "namespace_bytes",
        "job_network_deny",
        "job_runtime",
        "kubeconfig",
        "kube_context",
        "kube_namespace",
        "kube_pod_template",
        "kube_helper_image",
        "disk_limit",
        "images_allow",
        "shutdown_grace",
    }
)


def canary(name: str) -> str:
    return f"{CANARY}-{name}"


def canary_of(member: str) -> str:
    """Return the canary in a secret member of a job."""
    return canary(re.sub(r"\W+", "-", member))


def with_canaries(url: str, member: str) -> str:
    """Return the URL with a canary in each part that may be secret."""
    scheme, rest = url.split("://")
    host, slash, path = rest.partition("/")
    secret = canary_of(member)
    return f"{scheme}://{secret}-user:{secret}-password@{host}{slash}{path}?key={secret}&name={secret}-more"


def bearer(member: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {canary_of(member)}", "X-Secret": f"{canary_of(member)}-too"}


def job_with_canaries(*, download: str, upload: str, callback: str, **members: Any) -> dict[str, Any]:
    """Return a job with a canary in each secret member, which moves files from, to and between these URLs."""
    job = {
        "image": "alpine:latest",
        "command": "echo ran > out; exit 3",
        "environment": {"TOKEN": canary_of("environment")},
        "inputs": [
            {
                "type": "download",
                "path": "in",
                "url": with_canaries(download, "inputs[].url"),
                "headers": bearer("inputs[].headers"),
            },
            {"type": "file", "path": "file", "content": canary_of("inputs[].content")},
        ],
        "outputs": [
            {
                "type": "upload",
                "path": path,
                "url": with_canaries(upload, "outputs[].url"),
                "headers": bearer("outputs[].headers"),
            }
            for path in ("out", "missing")
        ],
        "callback": {
            "url": with_canaries(callback, "callback.url"),
            "key": [canary_of("callback.key"), f"{canary_of('callback.key')}-previous"],
            "headers": bearer("callback.headers"),
        },
    }
    return job | members


def secrets_of_settings(variables: Mapping[str, str]) -> list[str]:
    """Return what is secret of the settings in these environment variables."""
    return [secret for find in SECRET_SETTINGS.values() for secret in find(variables) if secret]


def spellings(secret: str) -> set[str]:
    """Return the secret as it is, in hexadecimal as a dump has bytes, and what all encodings in base64 have in common of it.

    In base64 the neighbors of a byte change its letters, so there are three of these, without the first and the last letters.
    """
    encoded = {b64encode(bytes(shift) + secret.encode()).decode()[4 : -4 or None] for shift in range(3)}
    return {secret, secret.encode().hex(), *(text for text in encoded if len(text) >= 8)}


def found_in(text: str, secrets: Iterable[str]) -> list[str]:
    """Return where a text has a secret in any spelling, with what surrounds it: the first place of each."""
    parts, lowered = [], text.lower()
    for spelling in {spelling for secret in secrets for spelling in spellings(secret)}:
        place = lowered.find(spelling.lower())
        if place >= 0:
            parts.append(text[max(0, place - 80) : place + len(spelling) + 40])
    return parts
