"""Packages of Debian that commands and tests unpack."""

import os
import subprocess
from pathlib import Path

import debian
import pytest

pytestmark = pytest.mark.stateless

# Finds packages only after an update, and no package named `unknown`.
APT_GET = """#!/bin/sh
echo "$*" >> asked
case "$2" in
    update) touch updated ;;
    download) [ -e updated ] && [ "$3" != unknown ] && touch "$3.deb" ;;
esac
"""


@pytest.fixture(autouse=True)
def apt_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "apt-get"
    program.write_text(APT_GET)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv(debian.OUTSIDE_VARIABLE, raising=False)


def test_a_download_that_fails_is_tried_again_with_new_package_lists(tmp_path: Path) -> None:
    debian.download(tmp_path, "known")

    assert (tmp_path / "known.deb").exists()
    assert (tmp_path / "asked").read_text().splitlines() == ["-q download known", "-q update", "-q download known"]


def test_a_package_that_nobody_has_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        debian.download(tmp_path, "unknown")
