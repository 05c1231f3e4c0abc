"""The contract of every engine: files copied into a created container and out of an ended one."""

import os
import tarfile
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.engine.protocol import Stat
from jobs.errors import EngineRefused, PathNotFound
from jobs.interrupt import Interrupt
from tests.helpers.engines import Bench, DockerBench, shell, tar_of, untar

pytestmark = pytest.mark.stateless

CHUNK = 64 * 1024


def read(bench: Bench, name: str, path: str) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    with bench.engine.get(name, path) as chunks:
        return untar(chunks)


# -- put and get ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o755, 0o4755])
def test_a_file_is_returned_as_it_was_put(bench: Bench, mode: int) -> None:
    name = bench.created()

    bench.engine.put(name, "/workspace", [tar_of("file", b"content\x00\xff", mode=mode, uid=1234, gid=99)])

    member, content = read(bench, name, "/workspace/file")["file"]
    assert content == b"content\x00\xff"
    assert (member.mode & 0o7777, member.uid, member.gid) == (mode, 1234, 99)


def test_a_process_reads_its_input_and_writes_its_output(bench: Bench) -> None:
    name = bench.created(shell("tr a-z A-Z < in > out"))
    bench.engine.put(name, "/workspace", [tar_of("in", b"hello")])

    bench.start(name)
    bench.engine.wait(name, Interrupt())

    assert read(bench, name, "/workspace/out")["out"][1] == b"HELLO"


def test_a_tar_may_have_chunks_of_any_size(bench: Bench) -> None:
    name = bench.created()
    archive = tar_of("file", os.urandom(100_000))

    bench.engine.put(name, "/workspace", (archive[start : start + 777] for start in range(0, len(archive), 777)))
    bench.engine.put(name, "/workspace", [b"", tar_of("other", b"x"), b""])

    assert read(bench, name, "/workspace/file")["file"][1] == archive[512 : 512 + 100_000]
    assert read(bench, name, "/workspace/other")["other"][1] == b"x"


def test_missing_directories_of_a_file_are_created(bench: Bench) -> None:
    name = bench.created()

    bench.engine.put(name, "/workspace", [tar_of("a/b/file", b"x")])

    assert bench.engine.stat(name, "/workspace/a/b") == Stat(bench.engine.stat(name, "/workspace/a/b").size, "directory")
    assert read(bench, name, "/workspace/a/b/file")["file"][1] == b"x"


def test_an_existing_file_is_replaced_but_not_a_directory(bench: Bench) -> None:
    name = bench.created()
    bench.engine.put(name, "/workspace", [tar_of("file", b"long content")])
    bench.engine.put(name, "/workspace", [tar_of("directory/file", b"")])

    bench.engine.put(name, "/workspace", [tar_of("file", b"short")])
    with pytest.raises(EngineRefused):
        bench.engine.put(name, "/workspace", [tar_of("directory", b"")])

    assert read(bench, name, "/workspace/file")["file"][1] == b"short"
    assert bench.engine.stat(name, "/workspace/directory/file") is not None


def test_a_directory_is_returned_with_its_content(bench: Bench) -> None:
    name = bench.created()
    bench.engine.put(name, "/workspace", [tar_of("a/b", b"x")])

    found = read(bench, name, "/workspace/a")

    assert found["a"][0].isdir()
    assert found["a/b"][1] == b"x"


@pytest.mark.parametrize("directory", ["/nosuch", "/workspace/nosuch", "/etc/passwd/below"])
def test_a_missing_directory_is_reported_before_any_byte_is_read(bench: Bench, directory: str) -> None:
    name = bench.created()

    def never() -> Iterator[bytes]:
        raise AssertionError("read")
        yield b""

    with pytest.raises(PathNotFound):
        bench.engine.put(name, directory, never())


def test_a_stream_that_is_not_a_tar_is_refused(bench: Bench) -> None:
    with pytest.raises(EngineRefused):
        bench.engine.put(bench.created(), "/workspace", [b"this is no tar archive" * 1000])


@pytest.mark.parametrize("failure", [OSError("broken download"), ValueError("mine"), TimeoutError("slow"), KeyError("x")])
def test_errors_of_the_tar_source_are_passed_on_unchanged(bench: Bench, failure: Exception) -> None:
    name = bench.created()

    def broken() -> Iterator[bytes]:
        yield tar_of("file", b"x" * CHUNK)[:CHUNK]
        raise failure

    with pytest.raises(type(failure)) as caught:
        bench.engine.put(name, "/workspace", broken())

    assert caught.value is failure
    bench.engine.put(name, "/workspace", [tar_of("file", b"whole")])
    assert read(bench, name, "/workspace/file")["file"][1] == b"whole"


@pytest.mark.parametrize("path", ["/nosuch", "/workspace/nosuch/file", "/etc/passwd/below"])
def test_a_missing_path_is_not_found(bench: Bench, path: str) -> None:
    name = bench.created()

    with pytest.raises(PathNotFound), bench.engine.get(name, path):
        pass
    assert bench.engine.stat(name, path) is None


def test_a_reader_may_leave_a_file_early(bench: Bench) -> None:
    name = bench.created()
    bench.engine.put(name, "/workspace", [tar_of("file", b"x" * 10 * CHUNK)])

    for _ in range(20):
        with bench.engine.get(name, "/workspace/file") as chunks:
            next(chunks)

    assert len(read(bench, name, "/workspace/file")["file"][1]) == 10 * CHUNK


def test_a_large_file_is_copied_in_constant_memory(bench: Bench, file_of_zeros: Path) -> None:
    name, size = bench.created(), file_of_zeros.stat().st_size
    member = tarfile.TarInfo("large")
    member.size = size

    def archive() -> Iterator[bytes]:
        yield member.tobuf()
        with file_of_zeros.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
        yield bytes(1024)

    tracemalloc.start()
    try:
        bench.engine.put(name, "/workspace", archive())
        with bench.engine.get(name, "/workspace/large") as chunks:
            got = sum(len(chunk) for chunk in chunks)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert got >= size
    assert peak < 4 * 1024**2


# -- stat and paths -----------------------------------------------------------------------------------------


def test_stat_returns_kind_and_size(bench: Bench) -> None:
    name = bench.ended(shell("printf hello > file; mkdir directory; ln -s file link; ln -s nowhere dangling; mkfifo pipe"))

    assert bench.engine.stat(name, "/workspace/file") == Stat(5, "file")
    for path, kind in {"directory": "directory", "link": "symlink", "dangling": "symlink", "pipe": "other"}.items():
        found = bench.engine.stat(name, f"/workspace/{path}")
        assert found is not None
        assert found.kind == kind


def test_symlinks_do_not_lead_out_of_the_container(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    up = "../" * 30
    name = bench.ended(shell(f"ln -s {tmp_path} absolute; ln -s {up}{str(tmp_path)[1:]} relative; ln -s {tmp_path}/secret file"))

    for path in ("absolute/secret", "relative/secret"):
        assert bench.engine.stat(name, f"/workspace/{path}") is None
        with pytest.raises(PathNotFound), bench.engine.get(name, f"/workspace/{path}"):
            pass
    member, content = read(bench, name, "/workspace/file")["file"]
    assert (member.issym(), content) == (True, b"")
    with pytest.raises(PathNotFound):
        bench.engine.put(name, "/workspace/absolute", [tar_of("secret", b"from the job")])
    assert (tmp_path / "secret").read_text() == "of the host"


def test_a_path_through_a_symlink_cycle_does_not_exist(bench: Bench) -> None:
    name = bench.ended(shell("ln -s a b; ln -s b a"))

    assert bench.engine.stat(name, "/workspace/a/file") is None
    assert bench.engine.real_path(name, "/workspace/a/file") == "/workspace/a/file"
    with pytest.raises(PathNotFound), bench.engine.get(name, "/workspace/a/file"):
        pass


def test_added_directories_are_not_in_the_image(bench: Bench) -> None:
    name = bench.created(workspace="/some/where")
    bench.engine.put(name, "/some/where", [tar_of("made/here/file", b"")])
    if not bench.engine.traits.reaches_only_workspace:
        bench.engine.put(name, "/tmp", [tar_of("file", b"")])
    asked = ["/", "/tmp", "/some", "/some/where", "/some/where/made", "/some/where/made/here", "/nosuch"]

    added = bench.engine.added_directories(name, asked)

    made_before = set() if bench.engine.traits.reaches_only_workspace else {"/some", "/some/where"}
    assert added == {"/some/where/made", "/some/where/made/here"} | made_before


def test_real_path_resolves_symlinks(bench: Bench) -> None:
    name = bench.created()
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
    bench.engine.put(name, "/workspace", [link.tobuf() + bytes(1024)])
    if not bench.engine.traits.reaches_only_workspace:
        bench.engine.put(name, "/tmp", [tar_of("made/file", b"")])

    found = [bench.engine.real_path(name, path) for path in ("/workspace/link/made", "/workspace/link/none/x", "//tmp/./made/")]

    assert found == ["/tmp/made", "/tmp/none/x", "/tmp/made"]


@pytest.mark.engine
def test_a_failed_upload_leaves_no_connection(docker_bench: DockerBench) -> None:
    name = docker_bench.created()
    before = len(os.listdir("/proc/self/fd"))

    def broken() -> Iterator[bytes]:
        yield tar_of("file", b"x" * CHUNK)[:CHUNK]
        raise OSError("broken")

    for _ in range(10):
        with pytest.raises(OSError, match="broken"):
            docker_bench.engine.put(name, "/workspace", broken())

    assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert threading.active_count() < 50
