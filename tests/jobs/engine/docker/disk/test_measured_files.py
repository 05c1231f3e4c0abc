"""Sizes of trees and of files without a name, whatever a job has made there."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.engine.docker.disk.tree_removal import remove_tree
from jobs.engine.docker.disk.tree_size import tree_files, tree_size
from jobs.engine.docker.disk.unnamed_files import unnamed_size
from jobs.errors import Unmeasurable
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.stateless

KIB = 1024
SECONDS = 60


def blocks(path: Path) -> int:
    return path.lstat().st_blocks * 512


def test_a_tree_has_the_size_that_it_occupies_on_the_disk(tmp_path: Path) -> None:
    # Given a file, a sparse one, a file with two names, and links that lead out of the tree
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(bytes(100 * KIB))
    with (tree / "sparse").open("wb") as file:
        file.truncate(10**12)
    os.link(tree / "file", tree / "same")
    (tmp_path / "other").write_bytes(bytes(1000 * KIB))
    (tree / "link").symlink_to(tmp_path / "other")
    (tree / "up").symlink_to("..")

    # I expect
    expected = sum(blocks(path) for path in (tree, tree / "file", tree / "sparse", tree / "link", tree / "up"))
    assert tree_size([tree], SECONDS) == expected
    assert tree_files([tree], SECONDS) == 5
    assert tree_size([tree, tmp_path / "other"], SECONDS) == expected + blocks(tmp_path / "other")


def test_a_deep_tree_with_long_names_is_measured_to_its_end(tmp_path: Path) -> None:
    # Given a path of 25,500 bytes, where Linux takes 4,096
    name, depth = "n" * 254, 100
    directory = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=directory)
        inner = os.open(name, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = inner
    file = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=directory)
    os.write(file, bytes(100 * KIB))
    os.close(file)
    os.close(directory)

    # I expect
    assert tree_files([tmp_path], SECONDS) == depth + 2
    size = tree_size([tmp_path], SECONDS)
    assert size is not None
    assert size >= 100 * KIB

    # And removed
    assert remove_tree(tmp_path / name, SECONDS)
    assert tree_files([tmp_path], SECONDS) == 1


def test_names_of_any_bytes_are_measured(tmp_path: Path) -> None:
    for name in (b"-x", b"a\nb", b"\xff\xfe", b"--files0-from=x", "é".encode()):
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(bytes(8 * KIB))

    assert tree_files([tmp_path], SECONDS) == 6


def test_a_tree_that_is_gone_has_no_size(tmp_path: Path) -> None:
    assert tree_size([tmp_path / "gone"], SECONDS) == 0
    assert tree_size([], SECONDS) == 0


def program(directory: Path, script: str) -> None:
    """Make a program `du` in a directory."""
    (directory / "du").write_text(f"#!/bin/sh\n{script}\n")
    (directory / "du").chmod(0o755)


def test_a_tree_that_takes_too_long_cannot_be_measured_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "exec /bin/sleep 60")
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(Unmeasurable, match="too many"):
        tree_size([tmp_path], 0.1)


def test_without_gnu_du_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tree_size([tmp_path], SECONDS) is not None

    # Given no du at all, or one that does not know the options
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tree_size([tmp_path], SECONDS) is None
    program(tmp_path, "echo 'unrecognized option' >&2; exit 1")
    assert tree_size([tmp_path], SECONDS) is None


@pytest.fixture
def user_of_unnamed_files(tmp_path: Path) -> Iterator[int]:
    """A process whose child has a nameless file of 100 KiB open twice, one of 200 KiB mapped, and one in memory."""
    script = f"""
import ctypes, mmap, os, time
def unnamed(name, size):
    file = open({str(tmp_path)!r} + name, "w+b")
    file.write(bytes(size))
    file.flush()
    os.unlink(file.name)
    return file
first = unnamed("/first", 100 * 1024)
second = os.dup(first.fileno())
mapped = unnamed("/mapped", 200 * 1024)
libc = ctypes.CDLL(None)  # Python's own mmap keeps the file open
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mmap(None, 200 * 1024, mmap.PROT_READ, mmap.MAP_SHARED, mapped.fileno(), 0)
mapped.close()
named = open({str(tmp_path)!r} + "/named", "w+b")
memory = os.memfd_create("memory")
os.write(memory, bytes(400 * 1024))
print("ready", flush=True)
time.sleep(60)
"""
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {script!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        os.killpg(process.pid, 9)


def test_files_without_a_name_count_once_as_long_as_someone_uses_them(user_of_unnamed_files: int, tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    mapped = 200 * KIB if os.geteuid() == 0 else 0  # only root sees what is mapped

    assert unnamed_size(user_of_unnamed_files, {device}) == 100 * KIB + mapped
    assert unnamed_size(user_of_unnamed_files, set()) == 0


def test_a_process_that_has_ended_uses_nothing(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait(SECONDS)
    wait_for(lambda: not Path(f"/proc/{ended.pid}").exists(), 5)

    assert unnamed_size(ended.pid, {tmp_path.stat().st_dev}) == 0
