"""Containers that were made and never started, for tests that put files into them and take files out."""

import hashlib
import io
import os
import secrets
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from jobs.engine.docker import DockerEngine
from jobs.engine.protocol import Engine, RunSpec, User
from jobs.transfers import Place, TransferLimits
from orchestrator_site.base.intervals import TransferIntervals
from tests.fake_engine import FakeEngine, FakeImage
from tests.helpers import built_images


def made(engine: Engine, image: str, workspace: str) -> Place:
    """A created container's workspace, as the runner makes it."""
    name = f"transfers-{secrets.token_hex(6)}"
    engine.create(
        RunSpec(
            name=name,
            image=image,
            command=("/bin/true",),
            environment={},
            workspace=workspace,
            cpu_millis=100,
            memory_mib=16,
            network=None,
            labels={},
            stop_grace_seconds=1,
            log_limit_bytes=2 * 1024**2,
        )
    )
    return Place(engine, name, workspace, engine.resolve_user(name))


@contextmanager
def fake_place(workspace: str = "/workspace", user: str = "", links: tuple[tuple[str, str], ...] = ()) -> Iterator[Place]:
    engine = FakeEngine()
    engine.images["image:latest"] = FakeImage(user=user, links=dict(links))
    try:
        yield made(engine, "image", workspace)
    finally:
        engine.close()


@contextmanager
def docker_place(workspace: str = "/workspace", user: str = "", links: tuple[tuple[str, str], ...] = ()) -> Iterator[Place]:
    host = os.environ["DOCKER_HOST"]
    engine = DockerEngine(host)
    place = made(engine, _docker_image(host, user, links), workspace)
    try:
        yield place
    finally:
        engine.remove(place.container, force=True)


@cache
def _docker_image(host: str, user: str, links: tuple[tuple[str, str], ...]) -> str:
    """Busybox with some links, to run as `user`; made once, and like the other images of tests left for the next run."""
    linked = f"-{hashlib.sha256(repr(links).encode()).hexdigest()[:12]}" if links else ""
    reference = f"orchestrator-test/transfers-{user or 'root'}{linked}:latest"
    with closing(built_images.client(host)) as docker:
        if docker.images.list(name=reference):
            return reference
    return built_images.import_busybox(host, reference, [f"USER {user}"] if user else [], links=dict(links))


def limits(spool_directory: Path, *, read: float = 10.0, retry: float = 0.001, **changed: Any) -> TransferLimits:
    """Return the limits of a test: short pauses, half a minute in all."""
    usual: dict[str, Any] = {"size": 64 * 1024**2, "deadline": time.monotonic() + 30}
    intervals = TransferIntervals(read=read, retry=retry)
    return TransferLimits(spool_directory=spool_directory, intervals=intervals, **{**usual, **changed})


def entry(place: Place, path: str) -> tarfile.TarInfo:
    """What a path is, not followed at its last component: kind, owner, mode."""
    with place.engine.get(place.container, path) as chunks, _archive(chunks) as archive:
        found = archive.next()
    assert found is not None
    return found


def content(place: Place, path: str) -> bytes:
    with place.engine.get(place.container, path) as chunks, _archive(chunks) as archive:
        found = archive.next()
        assert found is not None
        file = archive.extractfile(found)
        assert file is not None
        return file.read()


def owner(place: Place, path: str) -> User:
    found = entry(place, path)
    return User(found.uid, found.gid)


def mode(place: Place, path: str) -> int:
    return entry(place, path).mode & 0o7777


def plant(place: Place, directory: str, *entries: tuple[str, bytes, str]) -> None:
    """Put tar entries there, by name, type and (a link's) target: what an image or a job might leave."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, kind, target in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, target, 0o755 if kind == tarfile.DIRTYPE else 0o644
            tar.addfile(info)
    place.engine.put(place.container, directory, [archive.getvalue()])


def _archive(chunks: Iterator[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(b"".join(chunks)))
