import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.engine.kubernetes.files.running_mover import RunningMover, running_mover, wait_until_listening


@pytest.fixture
def inputs(tmp_path: Path) -> Iterator[RunningMover]:
    """A mover that takes inputs."""
    with running_mover(tmp_path) as mover:
        wait_until_listening(mover)
        yield mover


@pytest.fixture
def outputs(tmp_path: Path) -> Iterator[RunningMover]:
    """A mover that gives outputs."""
    with running_mover(tmp_path, role="outputs") as mover:
        wait_until_listening(mover)
        yield mover


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that any user may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        yield Path(path)
