"""How much work a large file is: counted, because the time depends on the machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.interrupt import Interrupt
from jobs.transfers import Workspace, put_file, upload_file
from orchestrator_site.base.egress import guarded_connections
from tests.helpers.fileserver import FileServer
from tests.jobs.transfers import workspaces
from tests.jobs.transfers.workspaces import docker_workspace

pytestmark = [pytest.mark.stateless, pytest.mark.engine]

MIB = 1024**2
SIZE = 16 * MIB


@pytest.fixture
def on_docker() -> Iterator[Workspace]:
    with docker_workspace() as workspace:
        yield workspace


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of each block of outgoing requests so far. The first of a request contains its head."""
    sizes: list[int] = []
    with_head = guarded_connections.with_head

    def counting(head: bytes, body: Any) -> Iterator[bytes | memoryview]:
        for part in with_head(head, body):
            sizes.append(len(part))
            yield part

    monkeypatch.setattr(guarded_connections, "with_head", counting)
    return sizes


def test_an_upload_sends_four_blocks_per_mebibyte(
    on_docker: Workspace, server: FileServer, tmp_path: Path, sent: list[int]
) -> None:
    # Given a large file in a container
    put_file(on_docker, "large", bytes(SIZE))

    # When it is uploaded
    limits = workspaces.limits(tmp_path)
    upload_file(on_docker, "large", server.url("/file"), "PUT", {}, limits=limits, interrupt=Interrupt())

    # I expect it in blocks of 256 KiB: the engine's own have 32 KiB, and each costs the same time of the processor. The first is
    # shorter by the archive's header.
    assert SIZE < sum(sent) < SIZE + 1024
    assert len(sent) <= 4 * SIZE // MIB + 1
