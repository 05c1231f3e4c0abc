"""Files that the mover unpacks into a workspace, and packs from it. The contract of `Engine` has more of them."""

import os
import stat
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.engine.kubernetes.files import FilesOfPod, PodFiles, new_tokens
from jobs.engine.protocol import Stat, User
from jobs.errors import EngineRefused, EngineUnavailable, Interrupted, PathNotFound
from jobs.interrupt import Interrupt
from orchestrator_site.base.intervals import EngineIntervals
from tests.helpers import memory
from tests.helpers.engines import tar_of, untar
from tests.helpers.ports import hold
from tests.jobs.engine.kubernetes.files.running_mover import WORKSPACE, RunningMover, running_mover

pytestmark = [pytest.mark.stateless, pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")]

CHUNK = bytes(256 * 1024)
LARGE_BYTES = 256 * 1024**2


def archive_of(name: str, size: int, chunk: bytes = CHUNK) -> Iterator[bytes]:
    member = tarfile.TarInfo(name)
    member.size = size
    yield member.tobuf()
    for _ in range(size // len(chunk)):
        yield chunk
    yield bytes(1024)


def read(files: PodFiles, path: str) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    with files.get(path) as chunks:
        return untar(chunks)


def test_an_input_belongs_to_its_user(inputs: RunningMover) -> None:
    inputs.files().put("/workspace", [tar_of("made/file", b"content", mode=0o6751, uid=1234, gid=99)])

    found = (inputs.directory / "made/file").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_size) == (0o6751, 1234, 99, 7)
    made = (inputs.directory / "made").stat()
    assert (stat.S_IMODE(made.st_mode), made.st_uid) == (0o755, 0)


def test_the_workspace_is_given_to_a_user_from_above(inputs: RunningMover) -> None:
    # Given the archive by which a worker gives a user the workspace
    entry = tarfile.TarInfo("workspace")
    entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, 1000, 1001

    inputs.files().put("/", [entry.tobuf() + bytes(1024)])

    found = inputs.directory.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o755, 1000, 1001)


@pytest.mark.parametrize("name", ["etc/passwd", "workspacex/file", "../file", "workspace/../file"])
def test_nothing_is_written_outside_of_the_workspace(inputs: RunningMover, name: str) -> None:
    with pytest.raises((PathNotFound, EngineRefused)):
        inputs.files().put("/", [tar_of(name, b"x")])

    assert list(inputs.directory.iterdir()) == []
    assert sorted(path.name for path in inputs.directory.parent.iterdir()) == ["files", "secrets"]


def test_a_workspace_below_other_directories(tmp_path: Path) -> None:
    with running_mover(tmp_path, workspace="/some/where") as mover:
        files = mover.files(workspace="/some/where")
        files.put("/some/where", [tar_of("file", b"x")])

        kinds = {
            path: found.kind if (found := files.stat(path)) else None for path in ("/", "/some", "/some/where", "/some/else")
        }

        assert kinds == {"/": "directory", "/some": "directory", "/some/where": "directory", "/some/else": None}
        assert read(files, "/some/where/file")["file"][1] == b"x"
        with pytest.raises(PathNotFound):
            files.put("/some", [tar_of("file", b"x")])


def test_another_user_than_root_owns_what_it_unpacks(open_directory: Path) -> None:
    # Given a mover that a pod template lets run as some user
    with running_mover(open_directory, prefix=("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups")) as mover:
        assert mover.files().user() == User(1000, 1000)
        # When it gets a file of another one
        mover.files().put("/workspace", [tar_of("file", b"x", mode=0o640, uid=0)])

        # I expect its own, as the job's process will be of this user, too
        found = (mover.directory / "file").stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, 1000, 1000)


def test_files_of_any_user_are_read(outputs: RunningMover) -> None:
    secret = outputs.directory / "closed" / "file"
    secret.parent.mkdir()
    secret.write_text("content")
    os.chown(secret, 1000, 1000)
    secret.chmod(0)
    secret.parent.chmod(0)

    member, content = read(outputs.files(), "/workspace/closed/file")["file"]

    assert (content, member.uid, member.mode & 0o7777) == (b"content", 1000, 0)


def test_outputs_cannot_be_changed(outputs: RunningMover) -> None:
    with pytest.raises(EngineRefused, match="the job has started"):
        outputs.files().put("/workspace", [tar_of("file", b"x")])


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 65536, 1_000_000])
def test_sizes_at_the_bounds_of_blocks(inputs: RunningMover, size: int) -> None:
    content = os.urandom(size)

    inputs.files().put("/workspace", [tar_of("file", content), b""])

    assert (inputs.directory / "file").read_bytes() == content
    assert read(inputs.files(), "/workspace/file")["file"][1] == content


def test_names_of_all_lengths_and_bytes(inputs: RunningMover) -> None:
    names = ["x" * 255, "ü" * 127, "a b%2F\n", "/".join(["d" * 200] * 15), *("n" * length for length in range(98, 103))]

    for name in names:
        inputs.files().put("/workspace", [tar_of(name, name.encode())])

    for name in names:
        (found,) = read(inputs.files(), f"/workspace/{name}").items()
        assert (found[0], found[1][1]) == (name.rsplit("/", 1)[-1], name.encode())
    everything = read(inputs.files(), "/workspace")
    assert {f"workspace/{name}" for name in names} <= set(everything)


def test_a_name_that_is_not_utf_8(outputs: RunningMover) -> None:
    name = os.fsdecode(b"\xff\xfe")
    (outputs.directory / name).write_text("x")
    (outputs.directory / "link").symlink_to(name)

    assert outputs.files().real_path("/workspace/link") == f"/workspace/{name}"
    assert read(outputs.files(), f"/workspace/{name}")[name][1] == b"x"


@pytest.mark.parametrize(
    "name", ["x" * 256, "/".join(["d" * 200] * 21), "/".join(["d" * 200] * 75)], ids=["name", "path", "more"]
)
def test_a_path_that_is_too_long_does_not_exist(inputs: RunningMover, name: str) -> None:
    assert inputs.files().stat(f"/workspace/{name}") is None
    with pytest.raises(PathNotFound):
        inputs.client().put(f"/workspace/{name}", [tar_of("file", b"x")])
    with pytest.raises(PathNotFound), inputs.client().get(f"/workspace/{name}"):
        pass
    with pytest.raises((PathNotFound, EngineRefused)):
        inputs.files().put("/workspace", [tar_of(name, b"x")])


def test_what_an_archive_may_not_contain(inputs: RunningMover) -> None:
    for kind in (tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.GNUTYPE_SPARSE, b"?"):
        entry = tarfile.TarInfo("entry")
        entry.type, entry.linkname = kind, "/etc/passwd"
        with pytest.raises(EngineRefused, match="something else than files"):
            inputs.files().put("/workspace", [entry.tobuf() + bytes(1024)])

    assert list(inputs.directory.iterdir()) == []


def test_a_large_file_goes_in_and_out_in_constant_memory(inputs: RunningMover) -> None:
    before = memory.reset_peak()
    started = time.monotonic()
    inputs.files().put("/workspace", archive_of("large", LARGE_BYTES))
    entered = time.monotonic()
    with inputs.files().get("/workspace/large") as chunks:
        got = sum(map(len, chunks))
    left = time.monotonic()

    assert got == LARGE_BYTES + 512 + 1024
    assert memory.peak() - before < 8 * 1024**2
    assert inputs.memory() < 4 * 1024**2
    print(f"in {LARGE_BYTES / 1e6 / (entered - started):.0f} MB/s, out {LARGE_BYTES / 1e6 / (left - entered):.0f} MB/s")


def test_an_interrupt_ends_a_call(inputs: RunningMover) -> None:
    interrupt = Interrupt()
    (inputs.directory / "large").write_bytes(b"")
    os.truncate(inputs.directory / "large", 1024**4)
    threading.Timer(0.2, interrupt.wake).start()

    with pytest.raises(Interrupted), inputs.files(interrupt).get("/workspace/large") as chunks:
        for _ in chunks:
            pass


def test_an_interrupt_ends_the_wait_for_a_mover() -> None:
    # Given a mover that does not listen yet
    with hold(0) as held:
        interrupt = Interrupt()
        place = FilesOfPod("127.0.0.1", WORKSPACE, new_tokens(), held.getsockname()[1])
        files = PodFiles(place, EngineIntervals(connect=60.0), interrupt)

        # When the wait for it is interrupted
        threading.Timer(0.2, interrupt.wake).start()

        # I expect it to end
        with pytest.raises(Interrupted):
            files.stat(WORKSPACE)


def test_a_mover_that_has_ended_is_unavailable(inputs: RunningMover) -> None:
    inputs.files().finish()
    assert inputs.process.wait(timeout=20) == 0

    with pytest.raises(EngineUnavailable):
        inputs.files(connect=0.1).stat("/workspace")


def test_a_mover_of_outputs_stays_if_the_inputs_are_said_to_be_in_again(outputs: RunningMover) -> None:
    # Given a worker that has not heard yet that the job has started
    outputs.files().finish()

    # I expect the outputs still to be there
    (outputs.directory / "file").write_bytes(b"output")
    with outputs.files().get("/workspace/file") as chunks:
        assert untar(chunks)["file"][1] == b"output"
    assert outputs.process.poll() is None


def test_errors_of_the_reader_are_its_own(outputs: RunningMover) -> None:
    (outputs.directory / "file").write_bytes(bytes(1024**2))

    def upload() -> None:
        with outputs.files().get("/workspace/file") as chunks:
            next(chunks)
            raise OSError("the upload failed")

    with pytest.raises(OSError, match="the upload failed"):
        upload()


def test_many_files_are_moved_at_once(inputs: RunningMover) -> None:
    def put(number: int) -> None:
        inputs.files().put("/workspace", [tar_of(f"{number}/file", b"x" * number)])

    threads = [threading.Thread(target=put, args=[number]) for number in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert [inputs.files().stat(f"/workspace/{number}/file") for number in range(25)] == [Stat(n, "file") for n in range(25)]
