"""What a job may have made in its workspace to mislead the mover."""

import itertools
import os
import signal
import socket
import stat
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from jobs.engine.kubernetes.files import PodFiles
from jobs.engine.protocol import Stat
from jobs.errors import EngineRefused, EngineUnavailable, PathNotFound
from tests.helpers.engines import tar_of, untar
from tests.helpers.waiting import wait_for
from tests.jobs.engine.kubernetes.files.running_mover import RunningMover, running_mover

pytestmark = [
    pytest.mark.stateless,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices and be several users"),
]

SECRET = "not of the job"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file outside of the workspace that the mover could read."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_text(SECRET)
    return path


def read(files: PodFiles, path: str) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    with files.get(path) as chunks:
        return untar(chunks)


def exhaust(chunks: Iterator[bytes]) -> None:
    for _ in chunks:
        pass


# -- links --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", ["{outside}", "../outside", "/workspace/../../../../../../..{outside}", "/proc/self/root{outside}"]
)
def test_a_link_leads_nowhere_outside(outputs: RunningMover, secret: Path, target: str) -> None:
    (outputs.directory / "directory").symlink_to(target.format(outside=secret))
    (outputs.directory / "file").symlink_to(target.format(outside=secret) + "/secret")
    files = outputs.files()

    assert files.stat("/workspace/directory/secret") is None
    for path in ("/workspace/directory/secret", "/workspace/directory/../outside/secret"):
        with pytest.raises(PathNotFound), files.get(path):
            pass
    member, content = read(files, "/workspace/file")["file"]
    assert (member.issym(), content) == (True, b"")
    found = files.stat("/workspace/file")
    assert found is not None
    assert found.kind == "symlink"


def test_a_cycle_of_links_has_nothing_below_it(outputs: RunningMover) -> None:
    (outputs.directory / "a").symlink_to("b")
    (outputs.directory / "b").symlink_to("a")
    files = outputs.files()

    assert files.stat("/workspace/a/file") is None
    assert files.real_path("/workspace/a/file") == "/workspace/a/file"
    with pytest.raises(PathNotFound), files.get("/workspace/a/file"):
        pass


def test_an_input_does_not_follow_a_link(inputs: RunningMover, secret: Path) -> None:
    (inputs.directory / "directory").symlink_to(secret)
    (inputs.directory / "file").symlink_to(secret / "secret")

    with pytest.raises(PathNotFound):
        inputs.files().put("/workspace/directory", [tar_of("secret", b"changed")])
    with pytest.raises(EngineRefused):
        inputs.files().put("/workspace", [tar_of("directory/secret", b"changed")])
    inputs.files().put("/workspace", [tar_of("file", b"changed")])

    assert (secret / "secret").read_text() == SECRET
    assert not (inputs.directory / "file").is_symlink()


def test_a_link_in_an_archive_is_not_followed_by_its_next_entry(inputs: RunningMover, secret: Path) -> None:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, str(secret)

    with pytest.raises(EngineRefused):
        inputs.files().put("/workspace", [link.tobuf() + tar_of("link/secret", b"changed")])

    assert (secret / "secret").read_text() == SECRET


@contextmanager
def exchanging(changing: Path, *make: Callable[[Path], object]) -> Iterator[None]:
    """Exchange what is at a path for what these functions make, again and again."""
    stop = threading.Event()

    def exchange() -> None:
        for step in itertools.cycle(make):
            if stop.is_set():
                return
            new = changing.with_name("new")
            step(new)
            new.replace(changing)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_directory_that_becomes_a_link_meanwhile_is_not_followed(outputs: RunningMover, secret: Path) -> None:
    # Given a job that exchanges a link to a directory for one to another with the same names
    (outputs.directory / "real").mkdir()
    (outputs.directory / "real/secret").write_text("of the job")
    links = (lambda new: new.symlink_to("real"), lambda new: new.symlink_to(secret))

    # When its file is read through it, I expect its own or none
    with exchanging(outputs.directory / "changing", *links):
        for _ in range(300):
            with suppress(PathNotFound):
                assert read(outputs.files(), "/workspace/changing/secret")["secret"][1] == b"of the job"


def test_a_file_that_becomes_a_link_meanwhile_is_not_followed(outputs: RunningMover, secret: Path) -> None:
    # Given a job that exchanges a file for a link
    kinds = (lambda new: new.write_text("of the job"), lambda new: new.symlink_to(secret / "secret"))

    # When it is read, I expect the file or the link itself
    with exchanging(outputs.directory / "changing", *kinds):
        for _ in range(500):
            with suppress(PathNotFound, EngineUnavailable):
                assert read(outputs.files(), "/workspace/changing")["changing"][1] in (b"of the job", b"")


def test_an_input_does_not_follow_a_link_that_comes_meanwhile(inputs: RunningMover, secret: Path) -> None:
    with exchanging(inputs.directory / "changing", lambda new: new.symlink_to(secret / "secret")):
        for _ in range(300):
            with suppress(EngineRefused):
                inputs.files().put("/workspace", [tar_of("changing", b"changed")])

    assert (secret / "secret").read_text() == SECRET


# -- unusual files --------------------------------------------------------------------------------------------------


def test_no_device_or_pipe_is_opened(outputs: RunningMover) -> None:
    os.mkfifo(outputs.directory / "pipe")
    os.mknod(outputs.directory / "zeros", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    os.mknod(outputs.directory / "disk", 0o666 | stat.S_IFBLK, os.makedev(7, 99))
    with closing(socket.socket(socket.AF_UNIX)) as bound:
        bound.bind(str(outputs.directory / "socket"))

    kinds = {name: outputs.files().stat(f"/workspace/{name}") for name in ("pipe", "zeros", "disk", "socket")}
    found = read(outputs.files(), "/workspace")

    assert {stat.kind for stat in kinds.values() if stat} == {"other"}
    types = {name: member.type for name, (member, _) in found.items()}
    assert types == {
        "workspace": tarfile.DIRTYPE,
        "workspace/pipe": tarfile.FIFOTYPE,
        "workspace/zeros": tarfile.CHRTYPE,
        "workspace/disk": tarfile.BLKTYPE,
    }


def test_a_sparse_file_costs_no_memory(outputs: RunningMover) -> None:
    with (outputs.directory / "sparse").open("wb") as file:
        file.truncate(1024**4)
    got = 0

    assert outputs.files().stat("/workspace/sparse") == Stat(1024**4, "file")
    with outputs.files().get("/workspace/sparse") as chunks:
        while got < 64 * 1024**2:
            got += len(next(chunks))
        assert outputs.memory() < 4 * 1024**2


def test_a_file_that_shrinks_is_filled_with_zeros(outputs: RunningMover) -> None:
    path = outputs.directory / "file"
    path.write_bytes(b"x" * 64 * 1024**2)

    with outputs.files().get("/workspace/file") as chunks:
        first = next(chunks)
        path.write_bytes(b"")
        rest = b"".join(chunks)

    ((member, content),) = untar([first, rest]).values()
    assert member.size == len(content) == 64 * 1024**2
    assert content.lstrip(b"x").strip(b"\0") == b""


@pytest.fixture
def deep(outputs: RunningMover) -> Iterator[Path]:
    """A tree of 300 levels."""
    top = outputs.directory / "deep"
    made = os.open(outputs.directory, os.O_RDONLY)
    for _ in range(300):
        name = "deep"
        os.mkdir(name, dir_fd=made)
        below = os.open(name, os.O_RDONLY, dir_fd=made)
        os.close(made)
        made = below
    os.close(made)
    yield top
    subprocess.run(["rm", "-rf", top], check=True)


def test_a_tree_that_is_too_deep_breaks_off(outputs: RunningMover, deep: Path) -> None:
    with outputs.files().get("/workspace/deep") as chunks, pytest.raises(EngineUnavailable):
        exhaust(chunks)

    # I expect it to be ready for the next request
    assert outputs.files().stat("/workspace/deep") is not None
    assert outputs.memory() < 8 * 1024**2


def test_a_directory_with_many_files(outputs: RunningMover) -> None:
    for number in range(3000):
        (outputs.directory / f"{number:0200d}").touch()

    assert len(read(outputs.files(), "/workspace")) == 3001


# -- the mover's own process ------------------------------------------------------------------------------------------


@contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    """Let the workspace of a mover that is started in `directory` have a disk of 1 MiB."""
    files = directory / "files"
    files.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", files], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", files], check=True)


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    with small_disk(tmp_path), running_mover(tmp_path) as mover:
        with pytest.raises(EngineUnavailable, match="disk of the cluster's node is full"):
            mover.files().put("/workspace", [tar_of("file", bytes(4 * 1024**2))])
        # I expect that a smaller file can take its place
        mover.files().put("/workspace", [tar_of("file", b"x")])


def test_outputs_are_read_from_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path), running_mover(tmp_path, role="outputs") as mover:
        (mover.directory / "output").write_text("x")
        with pytest.raises(OSError, match="No space left"):
            (mover.directory / "filler").write_bytes(bytes(4 * 1024**2))

        assert read(mover.files(), "/workspace/output")["output"][1] == b"x"


def test_a_killed_connection_is_unavailable(outputs: RunningMover) -> None:
    with (outputs.directory / "large").open("wb") as file:
        file.truncate(1024**4)

    with outputs.files().get("/workspace/large") as chunks:
        next(chunks)
        own = outputs.process.pid
        children = Path(f"/proc/{own}/task/{own}/children")
        wait_for(lambda: len(children.read_text().split()) == 1)  # those of earlier requests have ended
        os.kill(int(children.read_text()), signal.SIGKILL)
        with pytest.raises(EngineUnavailable):
            exhaust(chunks)

    assert outputs.files().stat("/workspace/large") == Stat(1024**4, "file")
