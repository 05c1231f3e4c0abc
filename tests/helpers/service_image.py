"""The image of deploy/Dockerfile, built on one that is made of Debian's packages: no registry is needed.

The service's requirements come from the package index, as wheels that are served to the build.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest
from virtualenv import PIP_OPTIONS

from tests.helpers import built_images

IMAGE: Final = "orchestrator-test/service:latest"
USER: Final = 10001  # that the image runs as, and its group

_ROOT: Final = Path(__file__).resolve().parents[2]
_WHEELS: Final = _ROOT / "var" / "wheels"


@contextmanager
def built(host: str) -> Iterator[str]:
    """Build the image, and remove it at the end. Skip the test if the package index does not answer."""
    if shutil.which("docker") is None:
        pytest.skip("the docker command is not installed")
    base = built_images.ensure_python_with_venv(host)
    with _served(_wheels()) as index:
        build = subprocess.run(
            [
                *("docker", "build", "--network", "host", "--file", "deploy/Dockerfile", "--tag", IMAGE),
                *("--build-arg", f"BASE={base}", "--build-arg", "PIP_NO_INDEX=1", "--build-arg", f"PIP_FIND_LINKS={index}", "."),
            ],
            cwd=_ROOT,
            env=os.environ | {"DOCKER_BUILDKIT": "0"},  # Debian has no package of the newer builder
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert build.returncode == 0, build.stdout[-3000:] + build.stderr[-3000:]
    try:
        yield IMAGE
    finally:
        built_images.remove(host, IMAGE)


def _wheels() -> Path:
    """Return a directory with the service's requirements, downloaded once for each version of them."""
    version = built_images.python_version().removeprefix("python")
    if version != f"{sys.version_info.major}.{sys.version_info.minor}":
        pytest.skip(f"the image would have Python {version}, for which this Python downloads nothing")
    requirements = _ROOT / "requirements.txt"
    directory = _WHEELS / hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    if not directory.exists():
        made = directory.with_suffix(f".{os.getpid()}")
        made.mkdir(parents=True, exist_ok=True)
        # All of them, also what only an older or newer Python than this one needs.
        unconditional = made / "requirements.txt"
        unconditional.write_text(re.sub(r" ; .*(?= \\$)", "", requirements.read_text(), flags=re.MULTILINE))
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        command = [*pip, "download", *PIP_OPTIONS, "--no-deps", "--dest", made, "--requirement", unconditional]
        if subprocess.run(command, check=False, timeout=600).returncode != 0:
            shutil.rmtree(made, ignore_errors=True)
            pytest.skip("the package index does not answer")
        shutil.rmtree(directory, ignore_errors=True)
        made.rename(directory)
    return directory


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _served(directory: Path) -> Iterator[str]:
    """Serve the files of a directory, and a list of them."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(directory))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
