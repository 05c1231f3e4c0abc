"""How the init gets into pods: a ConfigMap has its binary (see `jobs.engine.container_init`)."""

import base64
import hashlib
from functools import cache
from typing import Any, Final

from jobs.engine import container_init

_VOLUME: Final = "orchestrator-init"
_FILE: Final = container_init.COMMAND.rpartition("/")[2]


def config_map(architecture: str) -> dict[str, Any]:
    """Return the manifest of the ConfigMap, of which each namespace with jobs needs one. It is never changed."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _name(architecture)},
        "immutable": True,
        "binaryData": {_FILE: base64.b64encode(container_init.binary(architecture)).decode("ascii")},
    }


def volume(architecture: str) -> dict[str, Any]:
    """Return the volume of a pod that has the program."""
    return {"name": _VOLUME, "configMap": {"name": _name(architecture), "defaultMode": 0o555}}


def mount() -> dict[str, Any]:
    """Return how a container mounts that volume."""
    return {"name": _VOLUME, "mountPath": container_init.DIRECTORY, "readOnly": True}


@cache
def _name(architecture: str) -> str:
    """Return a name that differs for each version of the program."""
    version = hashlib.sha256(container_init.binary(architecture)).hexdigest()[:12]
    return f"orchestrator-init-{architecture}-{version}"
