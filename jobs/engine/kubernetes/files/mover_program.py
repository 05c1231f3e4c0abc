"""The mover (mover/main.c), and how it gets into pods: a ConfigMap has its binary, so that any image can run it."""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

ARCHITECTURES: Final = ("amd64", "arm64")  # names that Kubernetes has for them, too
FILE: Final = "mover"


@cache
def binary(architecture: str) -> bytes:
    """Return the program for one of `ARCHITECTURES`."""
    return (Path(__file__).with_name("mover") / f"mover-{architecture}").read_bytes()


@cache
def config_map_name(architecture: str) -> str:
    """Return the name of the ConfigMap, which differs for each version of the program."""
    version = hashlib.sha256(binary(architecture)).hexdigest()[:12]
    return f"orchestrator-mover-{architecture}-{version}"


def config_map(architecture: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the manifest of the ConfigMap, of which each namespace with jobs needs one. It is never changed."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": config_map_name(architecture), "labels": dict(labels)},
        "immutable": True,
        "binaryData": {FILE: base64.b64encode(binary(architecture)).decode("ascii")},
    }
