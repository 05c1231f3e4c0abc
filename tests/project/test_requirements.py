"""The pinned requirements have hashes, and are those that pyproject.toml asks for."""

import io
import re
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import pytest
import virtualenv
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.project.commands import ROOT

pytestmark = pytest.mark.stateless

PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES: Final = ("requirements.txt", "tests/requirements.txt", "bin/support/dependencies/requirements.txt")
ASKED_FOR: Final = {
    "requirements.txt": PROJECT["project"]["dependencies"],
    "tests/requirements.txt": PROJECT["dependency-groups"]["test"],
    "bin/support/dependencies/requirements.txt": PROJECT["dependency-groups"]["maintenance"],
}
OURSELVES: Final = "orchestrator"
ENTRY: Final = re.compile(
    r"(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?: ; (?P<marker>.+?))?(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n"
    r"    # via(?P<via>(?: .+|(?:\n    #   .+)+))\n"
)


@dataclass(frozen=True)
class Pinned:
    """An entry of a file of requirements: a package, its version, and what asks for it."""

    name: str
    version: Version
    marker: str | None
    needed_by: frozenset[str]


def needed_by(via: str) -> frozenset[str]:
    """Return the packages that ask for one, from the comment behind its hashes. The project is one of them."""
    lines = [line.strip(" #") for line in via.splitlines()]
    return frozenset(re.sub(r"^orchestrator \(.*\)$", OURSELVES, line) for line in lines if line and not line.startswith("-c "))


def pinned(file: str) -> dict[str, Pinned]:
    """Return the entries of a file. Fail if anything else is in it, for example an entry without a hash."""
    text = re.sub(r"\A(#.*\n)+", "", (ROOT / file).read_text())
    assert ENTRY.sub("", text) == ""
    entries = [
        Pinned(entry["name"], Version(entry["version"]), entry["marker"], needed_by(entry["via"]))
        for entry in ENTRY.finditer(text)
    ]
    assert len({entry.name for entry in entries}) == len(entries), "a package has one version"
    return {entry.name: entry for entry in entries}


@pytest.mark.parametrize("file", FILES)
def test_what_is_pinned_is_what_the_project_asks_for(file: str) -> None:
    # Given the dependencies in pyproject.toml, and the entries of the file that pins them, all of which have hashes
    asked_for = {canonicalize_name(parsed.name): parsed for parsed in map(Requirement, ASKED_FOR[file])}
    entries = pinned(file)

    # I expect each dependency to be pinned, in a version that it allows, and no other package to be called one
    assert {entry.name for entry in entries.values() if OURSELVES in entry.needed_by} == asked_for.keys()
    for name, dependency in asked_for.items():
        assert dependency.specifier.contains(entries[name].version)
    # and the rest to be what these need
    assert all(entry.needed_by and entry.needed_by <= entries.keys() | {OURSELVES} for entry in entries.values())


def test_what_packages_need_is_pinned() -> None:
    # Given the service's packages as they are installed here, and what each says that it needs on this platform
    entries = pinned("requirements.txt")
    needed = {
        canonicalize_name(requirement.name)
        for entry in entries.values()
        if not entry.marker or Marker(entry.marker).evaluate()
        for requirement in map(Requirement, metadata.requires(entry.name) or [])
        if not requirement.marker or requirement.marker.evaluate({"extra": ""})
    }

    # I expect all of it to be pinned in the same file
    assert needed <= entries.keys()


def test_the_files_agree() -> None:
    # Given all files, which are installed into one environment
    versions: dict[str, set[Version]] = {}
    for file in FILES:
        for entry in pinned(file).values():
            versions.setdefault(entry.name, set()).add(entry.version)

    # I expect each package to have the same version in all of them
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_every_installation_checks_hashes() -> None:
    # Given the commands of the Dockerfile, whose lines may go on in the next one
    commands = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ").split("&&")
    installing = [command.split() for command in commands if "pip install" in command]

    # I expect the options that bin/setup has
    assert installing
    assert all(set(virtualenv.PIP_OPTIONS) <= set(command) for command in installing)


def test_nothing_is_built_from_source(tmp_path: Path) -> None:
    # Given a source distribution that has the pinned hash and could be built
    source = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "PKG-INFO": "Metadata-Version: 2.1\nName: pinned\nVersion: 1\n",
        "backend.py": "open('ran', 'w')\n",
    }
    distribution = tmp_path / "pinned-1.tar.gz"
    with tarfile.open(distribution, "w:gz") as archive:
        for name, content in source.items():
            member = tarfile.TarInfo(f"pinned-1/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"pinned==1 --hash=sha256:{sha256(distribution.read_bytes()).hexdigest()}\n")

    # When it is installed
    offline = ("--dry-run", "--no-index", "--find-links", tmp_path, "--disable-pip-version-check")
    pip = [sys.executable, "-m", "pip", "install", *virtualenv.PIP_OPTIONS, *offline, "-r", requirements]
    installed = subprocess.run(pip, capture_output=True, text=True, timeout=60, check=False)

    # I expect it to be refused without running its code, which nothing has checked
    assert installed.returncode != 0
    assert "No matching distribution found for pinned==1" in installed.stderr
