"""Symbolic links of a job, which lead nowhere soon."""

from collections.abc import Mapping
from typing import Any

import pytest

from jobs.engine.docker.container_files import ContainerFiles
from jobs.engine.docker.transport import EngineClient
from orchestrator_site.base.intervals import EngineIntervals

pytestmark = pytest.mark.stateless

SYMLINK = 1 << 27


class Files(ContainerFiles):
    """The files of a container, of which the links are given, and all others are directories."""

    def __init__(self, links: Mapping[str, str]) -> None:
        super().__init__(EngineClient("unix:///nonexistent", EngineIntervals()))
        self.lookups = 0
        self._links = links

    def _stat(self, name: str, path: str) -> Mapping[str, Any] | None:
        self.lookups += 1
        return {"mode": SYMLINK if path in self._links else 0, "linkTarget": self._links.get(path, "")}


@pytest.mark.parametrize(
    ("path", "links", "real"),
    [
        ("/a/b", {}, "/a/b"),
        ("/a/./b//../c", {}, "/a/c"),
        ("/../../a", {}, "/a"),
        ("/a/b", {"/a": "/dev"}, "/dev/b"),
        ("/a/b", {"/a": "../c/d", "/c": "e"}, "/e/d/b"),
        ("/a/../b", {"/a": "/c/d"}, "/c/b"),
    ],
)
def test_links_are_resolved(path: str, links: dict[str, str], real: str) -> None:
    assert Files(links).real_path("job", path) == real


@pytest.mark.parametrize(
    ("target", "most"),
    [("./" * 2000 + "b", 40), ("../" * 1300 + "b", 40), ("c/" * 2000 + "b", 1024)],
    ids=["here", "up", "down"],
)
def test_a_long_link_costs_few_calls(target: str, most: int) -> None:
    # Given a job that left links whose targets have thousands of components, one after the other
    files = Files({f"/link{number}": f"{target}/../../link{number + 1}" for number in range(16)})

    # When a path below them is resolved, I expect few questions to the engine
    files.real_path("job", "/link0/out")
    assert files.lookups <= most
