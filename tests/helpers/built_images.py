"""Images that tests build themselves, without a registry. The one with Python is cached under `var/`."""

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

import debian
import docker
import image as stand_in

PYTHON = "orchestrator-test/python:latest"
PYTHON_WITH_VENV = "orchestrator-test/python-with-venv:latest"
BUSYBOX = "orchestrator-test/busybox:latest"

_CACHE = Path(__file__).resolve().parents[2] / "var" / "images"
_ENVIRONMENT = f"ENV PATH={stand_in.PATH}"


def client(host: str) -> docker.DockerClient:
    return docker.from_env(environment={**os.environ, "DOCKER_HOST": host}, timeout=300)


def ensure_alpine(host: str) -> str:
    """Make sure that there is an `alpine:latest`, if need be made from Debian's busybox-static, and return its reference."""
    stand_in.ensure(host)
    return f"{stand_in.NAME}:{stand_in.TAG}"


def import_busybox(
    host: str,
    reference: str,
    changes: Sequence[str] = (),
    *,
    command: Sequence[str] | None = ("/bin/sh",),
    links: Mapping[str, str] | None = None,
) -> str:
    """Import busybox under `reference`, with Dockerfile instructions as `docker import --change` takes them.

    `links` are symbolic links to add, and their targets.
    """
    archive = io.BytesIO(busybox_file_system())
    with tarfile.open(fileobj=archive, mode="a") as tar:
        for path, target in (links or {}).items():
            stand_in.add(tar, path.lstrip("/"), 0o777, tarfile.SYMTYPE, target=target)
    content = archive.getvalue()
    with closing(client(host)) as engine:
        _import(engine, content, reference, [*changes, *([f"CMD {json.dumps(list(command))}"] if command else [])])
    return reference


def busybox_file_system() -> bytes:
    """Return a tar archive of the stand-in's files."""
    with tempfile.TemporaryDirectory() as directory:
        return stand_in.file_system(stand_in.static_busybox(Path(directory)))


def load(host: str, reference: str, layer: bytes, architecture: str = "", **configuration: object) -> None:
    """Load an image of one layer, a tar archive, with any configuration. The default architecture is the engine's."""
    with closing(client(host)) as engine:
        engine.images.load(_saved(reference, layer, architecture or engine.version()["Arch"], configuration))


def _saved(reference: str, layer: bytes, architecture: str, configuration: dict[str, object]) -> bytes:
    described = {
        "architecture": architecture,
        "os": "linux",
        "config": configuration,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        described_bytes, manifest_bytes = json.dumps(described).encode(), json.dumps(manifest).encode()
        entries = {"config.json": described_bytes, "layer.tar": layer, "manifest.json": manifest_bytes}
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def push(host: str, here: str, reference: str, **credentials: str) -> None:
    """Push the image `here` to a registry as `reference`."""
    repository, _, tag = reference.rpartition(":")
    with closing(client(host)) as engine:
        engine.images.get(here).tag(repository, tag)
        for progress in engine.api.push(repository, tag, stream=True, decode=True, auth_config=credentials or None):
            assert "error" not in progress, progress


def ensure_python(host: str, reference: str = PYTHON) -> str:
    """Make an image with `python3` and busybox from Debian's packages, and return its reference.

    The first call downloads the packages.
    """
    return _ensure_python(host, reference, _python_packages())


def ensure_python_with_venv(host: str) -> str:
    """Make an image like that of `ensure_python`, whose Python can also make virtual environments."""
    venv = (f"{python_version()}-venv", "python3-pip-whl", "python3-setuptools-whl")
    return _ensure_python(host, PYTHON_WITH_VENV, sorted([*_python_packages(), *venv]))


def _ensure_python(host: str, reference: str, packages: list[str]) -> str:
    with closing(client(host)) as engine:
        if not engine.images.list(name=reference):
            _import(engine, _python_archive(packages).read_bytes(), reference, ['CMD ["python3"]'])
    return reference


def remove(host: str, reference: str) -> None:
    """Remove an image; do nothing if it does not exist."""
    with closing(client(host)) as engine, suppress(docker.errors.ImageNotFound):
        engine.images.remove(reference, force=True)


def tag(host: str, image_id: str, reference: str) -> None:
    """Tag an image as `reference`."""
    repository, _, name = reference.rpartition(":")
    with closing(client(host)) as engine:
        engine.images.get(image_id).tag(repository, name)


def id_of(host: str, reference: str) -> str:
    with closing(client(host)) as engine:
        return str(engine.images.get(reference).id)


def digest_of(host: str, reference: str) -> str:
    """Return the reference by digest of an image that was pulled."""
    with closing(client(host)) as engine:
        (digest,) = engine.images.get(reference).attrs["RepoDigests"]
    return str(digest)


def _import(engine: docker.DockerClient, content: bytes, reference: str, changes: Sequence[str]) -> None:
    repository, _, tag = reference.rpartition(":")
    engine.api.import_image_from_data(content, repository=repository, tag=tag, changes=[_ENVIRONMENT, *changes])
    engine.images.get(reference)  # a failed import is reported only in its progress


def _python_archive(packages: list[str]) -> Path:
    """Return the path of a tar archive of the file system, made by the first process that needs it."""
    archive = _CACHE / f"python-{hashlib.sha256(' '.join(packages).encode()).hexdigest()[:12]}.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with archive.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            with tempfile.TemporaryDirectory(dir=archive.parent) as directory:
                _build(packages, Path(directory), archive)
    return archive


def python_version() -> str:
    """Return the name of Debian's default Python: `python3.11`."""
    version = re.search(r"Depends: (python3\.\d+)-minimal", _run("apt-cache", "depends", "python3-minimal"))
    assert version, "apt does not know python3-minimal: run apt-get update"
    return version[1]


def _python_packages() -> list[str]:
    """Return the names of Debian's default Python, its standard library, and the libraries that they need."""
    unwanted = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    wanted = (f"{python_version()}-minimal", f"lib{python_version()}-stdlib")
    listed = _run("apt-cache", "depends", "--recurse", *(f"--no-{kind}" for kind in unwanted), *wanted)
    return sorted(
        name
        for name in re.findall(r"^(\S+)$", listed, re.MULTILINE)
        if name.startswith(("lib", "zlib", "python3")) and not name.startswith(("libperl", "libgdbm"))
    )


def _build(packages: list[str], directory: Path, archive: Path) -> None:
    root, downloads = directory / "root", directory / "packages"
    root.mkdir()
    downloads.mkdir(mode=0o777)
    debian.download(downloads, *packages)
    for package in downloads.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True, timeout=120)
    for unneeded in ("usr/share/doc", "usr/share/man", "usr/share/lintian"):
        shutil.rmtree(root / unneeded, ignore_errors=True)
    binary = next((root / "usr" / "bin").glob("python3.*")).name
    for name in ("python3", "python"):
        (root / "usr" / "bin" / name).symlink_to(binary)
    busybox = directory / "busybox.tar"
    busybox.write_bytes(stand_in.file_system(stand_in.static_busybox(directory)))
    with tarfile.open(busybox) as content:
        content.extractall(root, filter="fully_trusted")  # noqa: S202 - made above
    made = archive.with_suffix(".part")
    with tarfile.open(made, "w") as tar:
        tar.add(root, arcname=".")
    made.rename(archive)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, timeout=120, capture_output=True, text=True).stdout
