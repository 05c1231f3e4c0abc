"""bin/support/dependencies/sbom describes the pinned requirements."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.project.commands import ROOT

INSTALL_SECONDS = 900


@pytest.mark.stateless
@pytest.mark.packages
@pytest.mark.long
@pytest.mark.timeout(2 * INSTALL_SECONDS)
def test_the_sbom_has_every_pinned_package_and_is_always_the_same(tmp_path: Path) -> None:
    # Given a clone without the requirements of the tests, which the command does not use
    shutil.copytree(ROOT / "bin", tmp_path / "bin")
    for name in ("requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "requirements.txt").write_text("# none\n")

    # When the command is run twice
    command = tmp_path / "bin" / "support" / "dependencies" / "sbom"
    first, second = (subprocess.run([command], check=True, capture_output=True, timeout=INSTALL_SECONDS).stdout for _ in range(2))

    # I expect the same bytes, with every pinned version and all of its hashes
    assert first == second
    described = {
        (component["name"], component["version"]): {
            digest["content"] for reference in component["externalReferences"] for digest in reference["hashes"]
        }
        for component in json.loads(first)["components"]
    }
    entries = re.findall(r"^(\S+)==(\S+)(.*(?:\n {4}--hash=.*)+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert described == {(name, version): set(re.findall(r"[0-9a-f]{64}", rest)) for name, version, rest in entries}
