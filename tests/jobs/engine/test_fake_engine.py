"""Faults that tests inject into the fake engine."""

import threading
from pathlib import Path

import pytest

from jobs.errors import EngineUnavailable
from jobs.interrupt import Interrupt
from tests.fake_engine.directory_files import FileTree
from tests.helpers.engines import FakeBench, shell, tar_of

pytestmark = pytest.mark.stateless


def test_the_fake_fails_before_or_after_the_effect(fake_bench: FakeBench) -> None:
    engine, name = fake_bench.engine, fake_bench.created()
    engine.fail_next("start", EngineUnavailable("lost"))
    engine.fail_next("start", EngineUnavailable("lost"), after=True)

    with pytest.raises(EngineUnavailable):
        engine.start(name)
    assert engine.inspect(name).phase == "created"
    with pytest.raises(EngineUnavailable):
        engine.start(name)
    assert engine.inspect(name).phase != "created"


def test_an_unavailable_fake_ends_blocked_calls(fake_bench: FakeBench) -> None:
    engine, name = fake_bench.engine, fake_bench.started(shell("sleep 60"))
    leaving = threading.Timer(0.2, lambda: setattr(engine, "unavailable", True))
    leaving.start()

    with pytest.raises(EngineUnavailable):
        engine.wait(name, Interrupt())

    with pytest.raises(EngineUnavailable):
        engine.info()
    engine.unavailable = False
    assert engine.inspect(name).phase == "running"


@pytest.mark.parametrize("path", ["/../file", "/link/file", "/link/../file", ".."])
def test_the_fake_refuses_paths_on_this_machine_outside_a_container(tmp_path: Path, path: str) -> None:
    # Given a container with a link that leads out of it on this machine
    root = tmp_path / "root"
    root.mkdir()
    files = FileTree(root)
    files.add_link("/link", str(tmp_path))

    # When its real path is not resolved first, I expect an error
    with pytest.raises(ValueError, match="leads out of the container"):
        files.host(path)


def test_the_fake_writes_inside_a_container_only(tmp_path: Path) -> None:
    # Given links that lead out of a container on this machine
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "file").write_text("of this machine")
    files = FileTree(root)
    files.add_link("/directory", str(tmp_path))
    files.add_link("/file", str(tmp_path / "file"))

    # When files are written through them
    files.add_file("/directory/file", "of the container")
    files.add_link("/directory/link", "target")
    files.unpack("/directory", [tar_of("put", b"of the container")])
    files.unpack("/", [tar_of("file", b"of the container")])
    files.make_directory("/directory/made")
    files.make_directory("/../made")

    # I expect them in the container, and nothing else to have changed on this machine
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "root"]
    assert (tmp_path / "file").read_text() == "of this machine"
    assert files.read_text("/directory/file") == "of the container"
    assert files.read_text("/file") == "of the container"


def test_the_fake_does_not_replace_a_link_by_a_file_of_an_image(tmp_path: Path) -> None:
    files = FileTree(tmp_path)
    files.add_link("/link", "/file")
    with pytest.raises(FileExistsError):
        files.add_file("/link", "text")
