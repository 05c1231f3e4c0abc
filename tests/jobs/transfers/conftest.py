"""Workspaces, a file server and functions that download from it."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from jobs.interrupt import Interrupt
from jobs.transfers import Workspace, put_download, put_inputs
from jobs.transfers import download as download_module
from tests.helpers.fileserver import FileServer
from tests.jobs.transfers import workspaces
from tests.jobs.transfers.workspaces import Download, NewWorkspace, docker_workspace, fake_workspace


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.engine)])
def new_workspace(request: pytest.FixtureRequest) -> Iterator[NewWorkspace]:
    """Create containers on each engine."""
    make: Callable[..., AbstractContextManager[Workspace]] = {"fake": fake_workspace, "docker": docker_workspace}[request.param]
    with ExitStack() as stack:
        yield lambda directory="/workspace", user="", links=(): stack.enter_context(make(directory, user, links))


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    with fake_workspace() as one:
        yield one


@pytest.fixture
def small_spool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write downloads while they arrive after their first kilobyte."""
    monkeypatch.setattr(put_inputs, "ALWAYS_SPOOLED", 1000)
    monkeypatch.setattr(download_module, "_CHUNK_BYTES", 100)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as one:
        yield one


@pytest.fixture
def download(workspace: Workspace, tmp_path: Path) -> Iterator[Download]:
    """Download to `in.bin`; check that nothing is left in the spool directory afterwards."""

    def run(url: str, headers: dict[str, str] | None = None, sha256: str | None = None, **changed: Any) -> int:
        interrupt = changed.pop("interrupt", None) or Interrupt()
        return put_download(
            workspace, "in.bin", url, headers or {}, sha256, limits=workspaces.limits(tmp_path, **changed), interrupt=interrupt
        )

    yield run
    assert os.listdir(tmp_path) == []
