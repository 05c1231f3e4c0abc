from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.jobs.engine.docker.scripted_daemon import ScriptedDaemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[ScriptedDaemon]:
    with closing(ScriptedDaemon(tmp_path / "docker.sock")) as daemon:
        yield daemon
