"""The mover's binaries and the ConfigMap that brings them into pods."""

import base64
import shutil
import subprocess
from pathlib import Path

import pytest

from jobs.engine.kubernetes.files import ARCHITECTURES, config_map, mover_program
from tests.jobs.engine.kubernetes.files.running_mover import PROGRAM

pytestmark = pytest.mark.stateless

SOURCE = Path(mover_program.__file__).parent / "mover"
COMPILERS = {"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_binary_is_built_from_the_source(tmp_path: Path, architecture: str) -> None:
    compiler = COMPILERS[architecture]
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout if shutil.which(compiler) else b""
    if b"Debian 12." not in version:
        pytest.skip(f"needs {compiler} of Debian 12")

    subprocess.run([SOURCE / "build", tmp_path, architecture], check=True, timeout=60)

    made = f"mover-{architecture}"
    assert (tmp_path / made).read_bytes() == (SOURCE / made).read_bytes()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_config_map_has_the_binary(architecture: str) -> None:
    manifest = config_map(architecture, {"label": "value"})

    assert base64.b64decode(manifest["binaryData"]["mover"]) == (SOURCE / f"mover-{architecture}").read_bytes()
    assert manifest["metadata"]["labels"] == {"label": "value"}
    assert len(manifest["metadata"]["name"]) <= 63


def test_each_program_has_a_config_map_of_its_own() -> None:
    assert len({config_map(architecture, {})["metadata"]["name"] for architecture in ARCHITECTURES}) == 2


@pytest.mark.parametrize(
    "arguments",
    [[], ["inputs"], ["other", "1", "/w", "/tmp", "/tmp"], ["inputs", "x", "/w", "/", "/"], ["inputs", "1", "/w", "/", "/"]],
)
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, check=False, timeout=20)

    assert done.returncode in (1, 2)
    assert done.stderr
