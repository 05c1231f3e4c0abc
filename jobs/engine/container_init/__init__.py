"""The first process of a job's container: init.c, and its binaries. See docs/adr/0014-our-own-init.md."""

from pathlib import Path
from typing import Final

# Container runtimes mount their own /dev, so no image can contain anything there.
DIRECTORY: Final = "/dev/orchestrator"
COMMAND: Final = f"{DIRECTORY}/init"

ARCHITECTURES: Final = ("amd64", "arm64")  # Docker's and Kubernetes' names
SOURCE: Final = Path(__file__).with_name("init")  # a binary's name without its architecture


def binary(architecture: str) -> bytes:
    """Return the program for one of `ARCHITECTURES`."""
    return SOURCE.with_name(f"{SOURCE.name}-{architecture}").read_bytes()
