"""Docker Compose: the plugin of Docker's own packages, or Debian's program, which bin/test installs."""

import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import pytest

_COMMANDS: Final = (("docker", "compose"), ("docker-compose",))


def compose(file: Path, *arguments: str, variables: Mapping[str, str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run Compose with these environment variables only, and return what it has printed."""
    return subprocess.run(
        [*_command(), "--file", str(file), *arguments],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", **variables},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@cache  # asking for its version takes as long as reading a file
def _command() -> tuple[str, ...]:
    for command in _COMMANDS:
        if shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0:
            return command
    pytest.skip("Docker Compose is not installed")
