"""Provide `alpine:latest`: from a registry, or made from Debian's busybox-static if no registry can be reached."""

import io
import json
import os
import platform
import queue
import shutil
import subprocess
import tarfile
import tempfile
import threading
from contextlib import closing, suppress
from pathlib import Path

import debian
import docker

NAME = "alpine"
TAG = "latest"
MISSING = f"{NAME}:{TAG} is missing and cannot be pulled"
LABEL = "Stands in for alpine where no registry is reached: Debian's busybox-static, imported by Orchestrator"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SILENCE_SECONDS = 8  # without progress, after which a pull is given up
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
DIRECTORIES = {"tmp": 0o1777, "var": 0o755, "var/tmp": 0o1777, "root": 0o700, "home": 0o755, "run": 0o755, "dev": 0o755}
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    "etc/group": "root:x:0:\nnobody:x:65534:\n",
}


class ImageError(Exception):
    """The image is missing and can neither be pulled nor made. The message says how to get it."""


def ensure(host: str, other: str | None = None) -> None:
    """Provide `alpine:latest`: copied from the engine at `other`, else pulled, else made. Raise `ImageError` if nothing works."""
    with closing(client_of(host)) as client:
        if not is_there(client) and not copied(client, other) and not pulled(client):
            make(client)


def client_of(host: str) -> docker.DockerClient:
    return docker.from_env(environment={**os.environ, "DOCKER_HOST": host}, timeout=60)


def copied(client: docker.DockerClient, other: str | None) -> bool:
    """Copy the image from the engine at the address `other`, and return whether that worked."""
    with suppress(docker.errors.DockerException, OSError):  # whatever the reason: the image is pulled or made instead
        if other:
            with closing(client_of(other)) as engine:
                client.images.load(b"".join(engine.images.get(f"{NAME}:{TAG}").save(named=f"{NAME}:{TAG}")))
    return is_there(client)


def is_there(client: docker.DockerClient) -> bool:
    try:
        client.images.get(f"{NAME}:{TAG}")
    except docker.errors.ImageNotFound:
        return False
    return True


def pulled(client: docker.DockerClient) -> bool:
    """Pull the image, and return whether that worked. Give up if the registry makes no progress."""
    heard: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def pull() -> None:
        with suppress(Exception):  # whatever the reason: the image is made instead
            for _ in client.api.pull(NAME, tag=TAG, stream=True):
                heard.put(True)
        heard.put(False)

    threading.Thread(target=pull, daemon=True).start()
    with suppress(queue.Empty):
        while heard.get(timeout=SILENCE_SECONDS):
            pass
    return is_there(client)


def make(client: docker.DockerClient) -> None:
    """Import an image of busybox as `alpine:latest`. Raise `ImageError` if that fails."""
    if client.version()["Arch"] != ARCHITECTURES.get(platform.machine(), platform.machine()):
        raise ImageError(f"{MISSING}, and this engine has another architecture than this machine: load the image.")
    with tempfile.TemporaryDirectory() as directory:
        busybox = static_busybox(Path(directory))
        changes = [f"ENV PATH={PATH}", 'CMD ["/bin/sh"]', f"LABEL orchestrator.image={json.dumps(LABEL)}"]
        client.api.import_image_from_data(file_system(busybox), repository=NAME, tag=TAG, changes=changes)
    if not is_there(client):
        raise ImageError(f"{MISSING}, and the engine did not import a replacement: see its log.")


def static_busybox(directory: Path) -> Path:
    """Return the path of Debian's static busybox: the installed one, or one unpacked into `directory`. Raise `ImageError`."""
    if shutil.which("dpkg-query") and succeeds(directory, "dpkg-query", "-W", "busybox-static"):
        return Path("/bin/busybox")
    try:
        debian.download(directory, "busybox-static")
    except (OSError, subprocess.SubprocessError) as error:
        raise ImageError(f"{MISSING}: load it (docker load), or give the engine access to a registry.") from error
    (package,) = directory.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, directory], check=True, timeout=60)
    return next(path for path in (directory / "bin" / "busybox", directory / "usr" / "bin" / "busybox") if path.exists())


def succeeds(directory: Path, *command: str) -> bool:
    return subprocess.run(command, cwd=directory, capture_output=True, check=False, timeout=300).returncode == 0


def file_system(busybox: Path) -> bytes:
    """Return a tar archive (about 2 MB) with busybox under all its names, and the few files that programs expect."""
    applets = subprocess.run([busybox, "--list-full"], capture_output=True, text=True, check=True, timeout=60).stdout.split()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, mode in DIRECTORIES.items():
            add(tar, name, mode, tarfile.DIRTYPE)
        for name, text in FILES.items():
            add(tar, name, 0o644, content=text.encode())
        add(tar, "bin/busybox", 0o755, content=busybox.read_bytes())
        for applet in applets:
            if applet != "bin/busybox":
                add(tar, applet, 0o777, tarfile.SYMTYPE, target="/bin/busybox")
    return archive.getvalue()


def add(
    tar: tarfile.TarFile, name: str, mode: int, kind: bytes = tarfile.REGTYPE, *, content: bytes = b"", target: str = ""
) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.type, entry.size, entry.linkname = mode, kind, len(content), target
    tar.addfile(entry, io.BytesIO(content))
