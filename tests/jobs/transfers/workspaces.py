"""Containers that were created and never started, for tests of files in their workspaces."""

import hashlib
import io
import os
import secrets
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from jobs.engine.docker import DockerEngine
from jobs.engine.protocol import Engine, RunSpec, User
from jobs.transfers import TransferLimits, Workspace
from orchestrator_site.base.intervals import TransferIntervals
from tests.fake_engine import FakeEngine, FakeImage
from tests.helpers import built_images

Download = Callable[..., int]
NewWorkspace = Callable[..., Workspace]


def created(engine: Engine, image: str, directory: str) -> Workspace:
    """Create a container as the runner does; return its workspace."""
    name = f"transfers-{secrets.token_hex(6)}"
    engine.create(
        RunSpec(
            name=name,
            image=image,
            command=("/bin/true",),
            environment={},
            workspace=directory,
            cpu_millis=100,
            memory_mib=16,
            network=None,
            labels={},
            stop_grace_seconds=1,
            log_limit_bytes=2 * 1024**2,
        )
    )
    return Workspace(engine, name, directory, engine.resolve_user(name))


@contextmanager
def fake_workspace(directory: str = "/workspace", user: str = "", links: tuple[tuple[str, str], ...] = ()) -> Iterator[Workspace]:
    engine = FakeEngine()
    engine.images["image:latest"] = FakeImage(user=user, links=dict(links))
    try:
        yield created(engine, "image", directory)
    finally:
        engine.close()


@contextmanager
def docker_workspace(
    directory: str = "/workspace", user: str = "", links: tuple[tuple[str, str], ...] = ()
) -> Iterator[Workspace]:
    host = os.environ["DOCKER_HOST"]
    engine = DockerEngine(host)
    workspace = created(engine, _docker_image(host, user, links), directory)
    try:
        yield workspace
    finally:
        engine.remove(workspace.container, force=True)


@cache
def _docker_image(host: str, user: str, links: tuple[tuple[str, str], ...]) -> str:
    """Build an image of busybox with some links that runs as `user`; it is kept for the next run of the tests."""
    linked = f"-{hashlib.sha256(repr(links).encode()).hexdigest()[:12]}" if links else ""
    reference = f"orchestrator-test/transfers-{user or 'root'}{linked}:latest"
    with closing(built_images.client(host)) as docker:
        if docker.images.list(name=reference):
            return reference
    return built_images.import_busybox(host, reference, [f"USER {user}"] if user else [], links=dict(links))


def limits(spool_directory: Path, *, read: float = 10.0, retry: float = 0.001, **changed: Any) -> TransferLimits:
    """Return the limits of a test: short pauses, half a minute in all. `changed` may have any of the intervals, too."""
    usual: dict[str, Any] = {"size": 64 * 1024**2, "deadline": time.monotonic() + 30}
    direct = {name: changed.pop(name) for name in ("direct", "direct_max", "direct_silence") if name in changed}
    intervals = TransferIntervals(read=read, retry=retry, **direct)
    return TransferLimits(spool_directory=spool_directory, intervals=intervals, **{**usual, **changed})


def entry(workspace: Workspace, path: str) -> tarfile.TarInfo:
    """Return kind, owner and mode of a path; a link at its end is not followed."""
    with workspace.engine.get(workspace.container, path) as chunks, _archive(chunks) as archive:
        found = archive.next()
    assert found is not None
    return found


def content(workspace: Workspace, path: str) -> bytes:
    with workspace.engine.get(workspace.container, path) as chunks, _archive(chunks) as archive:
        found = archive.next()
        assert found is not None
        file = archive.extractfile(found)
        assert file is not None
        return file.read()


def owner(workspace: Workspace, path: str) -> User:
    found = entry(workspace, path)
    return User(found.uid, found.gid)


def mode(workspace: Workspace, path: str) -> int:
    return entry(workspace, path).mode & 0o7777


def plant(workspace: Workspace, directory: str, *entries: tuple[str, bytes, str]) -> None:
    """Put tar entries, given by name, type and link target, into a directory, as an image or a job might leave them."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, kind, target in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, target, 0o755 if kind == tarfile.DIRTYPE else 0o644
            tar.addfile(info)
    workspace.engine.put(workspace.container, directory, [archive.getvalue()])


def plant_pipe(workspace: Workspace) -> None:
    if isinstance(workspace.engine, FakeEngine):
        pytest.skip("the fake engine unpacks no pipes")
    plant(workspace, "/workspace", ("pipe", tarfile.FIFOTYPE, ""))


def _archive(chunks: Iterator[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(b"".join(chunks)))


def arrived(workspace: Workspace) -> bytes:
    return content(workspace, "/workspace/in.bin")


def never_arrived(workspace: Workspace) -> bool:
    return workspace.engine.stat(workspace.container, "/workspace/in.bin") is None
