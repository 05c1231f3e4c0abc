"""Files in a container: their paths and owners, and their content in events."""

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import pytest

from jobs.engine.protocol import User
from jobs.errors import EngineRefused, EngineUnavailable, OutputNotFound, ReadFailed, WriteFailed
from jobs.transfers import Workspace, prepare_workspace, put_file, read_event_content
from jobs.transfers.event_content import MAX_CONTENT_BYTES
from jobs.transfers.workspace import Target, write_file
from tests.jobs.transfers import workspaces
from tests.jobs.transfers.workspaces import content, docker_workspace, entry, fake_workspace, mode, owner, plant

pytestmark = pytest.mark.stateless

NOBODY = User(65534, 65534)
NewWorkspace = Callable[..., Workspace]


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.engine)])
def new_workspace(request: pytest.FixtureRequest) -> Iterator[NewWorkspace]:
    """Create containers on each engine."""
    make: Callable[..., AbstractContextManager[Workspace]] = {"fake": fake_workspace, "docker": docker_workspace}[request.param]
    with ExitStack() as stack:
        yield lambda directory="/workspace", user="", links=(): stack.enter_context(make(directory, user, links))


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    with fake_workspace() as one:
        yield one


class TestWorkspace:
    def test_the_workspace_belongs_to_the_images_user(self, new_workspace: NewWorkspace) -> None:
        # Given an image with a user and without the workspace
        workspace = new_workspace("/srv/deep/work", "nobody")
        # When it is prepared
        prepare_workspace(workspace)
        # I expect that user to own it, and the directories created for it
        assert [owner(workspace, path) for path in ("/srv", "/srv/deep", "/srv/deep/work")] == [NOBODY] * 3
        assert mode(workspace, "/srv/deep/work") == 0o755

    def test_directories_of_the_image_are_unchanged(self, new_workspace: NewWorkspace) -> None:
        # Given an image that has the directory above the workspace
        workspace = new_workspace("/tmp/work", "nobody")
        before = (owner(workspace, "/tmp"), mode(workspace, "/tmp"))
        prepare_workspace(workspace)
        assert (owner(workspace, "/tmp"), mode(workspace, "/tmp")) == before
        assert owner(workspace, "/tmp/work") == NOBODY

    def test_a_workspace_of_the_image_is_unchanged(self, new_workspace: NewWorkspace) -> None:
        workspace = new_workspace("/tmp", "nobody")
        before = (owner(workspace, "/tmp"), mode(workspace, "/tmp"))
        prepare_workspace(workspace)
        assert (owner(workspace, "/tmp"), mode(workspace, "/tmp")) == before

    def test_the_workspace_of_root_is_unchanged(self, new_workspace: NewWorkspace) -> None:
        workspace = new_workspace()
        prepare_workspace(workspace)
        assert owner(workspace, "/workspace") == User(0, 0)

    def test_a_workspace_path_is_normalised(self, new_workspace: NewWorkspace) -> None:
        workspace = new_workspace("//srv/./work/", "nobody")
        prepare_workspace(workspace)
        assert owner(workspace, "/srv/work") == NOBODY

    @pytest.mark.parametrize(
        ("directory", "links", "created"),
        [
            ("/work", (("/work", "/data/deep"),), ["/data", "/data/deep"]),
            ("/work/below", (("/work", "data"),), ["/data", "/data/below"]),
            ("/work", (("/work", "other"), ("/other", "/tmp/new")), ["/tmp/new"]),
        ],
        ids=["absolute", "relative", "a link to a link"],
    )
    def test_the_target_of_a_dangling_link_belongs_to_the_images_user(
        self, new_workspace: NewWorkspace, directory: str, links: tuple[tuple[str, str], ...], created: list[str]
    ) -> None:
        # Given an image with a user, whose workspace is behind a link that leads to nothing
        workspace = new_workspace(directory, "nobody", links)
        before = owner(workspace, "/tmp")
        # When it is prepared, and a file is written to it
        prepare_workspace(workspace)
        put_file(workspace, "in.txt", b"hello")
        # I expect the directories to exist and to belong to that user, and the link to be unchanged
        assert [owner(workspace, path) for path in created] == [NOBODY] * len(created)
        assert content(workspace, f"{created[-1]}/in.txt") == b"hello"
        assert entry(workspace, links[0][0]).issym()
        assert owner(workspace, "/tmp") == before


class TestPutFile:
    def test_a_file_belongs_to_the_images_user_and_is_readable(self, new_workspace: NewWorkspace) -> None:
        # Given a job whose image has a user
        workspace = new_workspace(user="nobody")
        prepare_workspace(workspace)
        # When a file is written to its workspace
        put_file(workspace, "in.txt", b"hello")
        # I expect it to belong to that user
        assert content(workspace, "/workspace/in.txt") == b"hello"
        assert (owner(workspace, "/workspace/in.txt"), mode(workspace, "/workspace/in.txt")) == (NOBODY, 0o644)

    @pytest.mark.parametrize("given_mode", [0o600, 0o755, 0o4755, 0o000])
    def test_a_mode_is_kept(self, new_workspace: NewWorkspace, given_mode: int) -> None:
        workspace = new_workspace()
        put_file(workspace, "run", b"#!/bin/sh\n", given_mode)
        assert mode(workspace, "/workspace/run") == given_mode

    def test_missing_directories_are_created(self, new_workspace: NewWorkspace) -> None:
        workspace = new_workspace(user="nobody")
        prepare_workspace(workspace)
        put_file(workspace, "a/b/c.txt", b"deep")
        assert content(workspace, "/workspace/a/b/c.txt") == b"deep"
        assert [(owner(workspace, path), mode(workspace, path)) for path in ("/workspace/a", "/workspace/a/b")] == [
            (NOBODY, 0o755)
        ] * 2

    def test_existing_directories_are_unchanged(self, new_workspace: NewWorkspace) -> None:
        # Given the image's /tmp, to which any user may write
        workspace = new_workspace("/", "nobody")
        before = (owner(workspace, "/tmp"), mode(workspace, "/tmp"), owner(workspace, "/"), mode(workspace, "/"))
        # When a file is written below it
        put_file(workspace, "tmp/new/in.txt", b"x")
        # I expect only new directories to belong to the user
        assert (owner(workspace, "/tmp"), mode(workspace, "/tmp"), owner(workspace, "/"), mode(workspace, "/")) == before
        assert owner(workspace, "/tmp/new") == NOBODY

    def test_two_files_share_a_directory(self, new_workspace: NewWorkspace) -> None:
        workspace = new_workspace()
        put_file(workspace, "a/one", b"1")
        put_file(workspace, "a/two", b"2")
        assert content(workspace, "/workspace/a/one") + content(workspace, "/workspace/a/two") == b"12"

    def test_a_file_that_exists_is_replaced(self, new_workspace: NewWorkspace) -> None:
        # Given a worker that died after it wrote a file
        workspace = new_workspace()
        put_file(workspace, "in.txt", b"the first, longer text")
        # When the next one puts it again
        put_file(workspace, "in.txt", b"second")
        assert content(workspace, "/workspace/in.txt") == b"second"

    @pytest.mark.parametrize(
        "name",
        [
            ".hidden",
            ".wh.whiteout",
            " ",
            "-rf",
            "a b",
            "a\nb",
            "back\\slash",
            "ünïcödé 😀",
            "x" * 255,
            "*",
            "PaxHeaders.0",
            "a:b",
        ],
    )
    def test_a_name_has_no_special_meaning(self, new_workspace: NewWorkspace, name: str) -> None:
        workspace = new_workspace()
        put_file(workspace, f"dir/{name}", b"content")
        assert read_event_content(workspace, f"dir/{name}") == (7, '"content"')

    def test_a_path_may_be_long(self, new_workspace: NewWorkspace) -> None:
        workspace = new_workspace()
        path = "/".join(["d" * 100] * 10)
        put_file(workspace, path, b"x")
        assert read_event_content(workspace, path) == (1, '"x"')

    def test_a_path_is_normalised(self, new_workspace: NewWorkspace) -> None:
        workspace = new_workspace("/workspace/")
        put_file(workspace, "./a//b", b"x")
        assert content(workspace, "/workspace/a/b") == b"x"

    def test_a_linked_directory_is_resolved_inside_the_container(self, new_workspace: NewWorkspace) -> None:
        # Given an image in which part of the path is an absolute link
        workspace = new_workspace()
        plant(workspace, "/workspace", ("link", tarfile.SYMTYPE, "/tmp"))
        # When files are written below it
        put_file(workspace, "link/one", b"1")
        put_file(workspace, "link/new/two", b"2")
        # I expect them in its target in the container, and the link to be unchanged
        assert content(workspace, "/tmp/one") + content(workspace, "/tmp/new/two") == b"12"
        assert entry(workspace, "/workspace/link").issym()

    def test_a_link_at_the_path_is_replaced(self, new_workspace: NewWorkspace) -> None:
        workspace = new_workspace()
        plant(workspace, "/workspace", ("link", tarfile.SYMTYPE, "/etc/passwd"))
        put_file(workspace, "link", b"mine")
        assert content(workspace, "/workspace/link") == b"mine"
        assert b"root" in content(workspace, "/etc/passwd")

    @pytest.mark.parametrize(
        ("path", "words"),
        [
            ("directory", "directory"),
            ("file/below", "is not a directory"),
            ("file/far/below", "is not a directory"),
            ("dangling/below", "is not a directory"),
            ("dangling/far/below", "is not a directory"),
            ("filelink/below", "directory"),
            ("filelink/far/below", "directory"),
            ("circle/below", "directory"),
            ("pipe/below", "is not a directory"),
        ],
    )
    def test_a_path_that_cannot_be_written_fails_with_the_reason(
        self, new_workspace: NewWorkspace, path: str, words: str
    ) -> None:
        workspace = new_workspace()
        plant(
            workspace,
            "/workspace",
            ("directory", tarfile.DIRTYPE, ""),
            ("directory/kept", tarfile.REGTYPE, ""),
            ("file", tarfile.REGTYPE, ""),
            ("dangling", tarfile.SYMTYPE, "/nowhere"),
            ("filelink", tarfile.SYMTYPE, "file"),
            ("circle", tarfile.SYMTYPE, "circle"),
        )
        if path.startswith("pipe"):
            plant_pipe(workspace)
        with pytest.raises(WriteFailed, match=words) as failure:
            put_file(workspace, path, b"x")
        assert path in str(failure.value)
        assert entry(workspace, "/workspace/directory/kept").isreg()

    @pytest.mark.parametrize("path", ["../out", "a/../../out", "", ".", "/", "x" * 256, "a/" * 3000 + "b", "\x01😀" * 300])
    def test_an_invalid_path_is_refused(self, workspace: Workspace, path: str) -> None:
        with pytest.raises(WriteFailed) as failure:
            put_file(workspace, path, b"x")
        assert len(str(failure.value).encode()) <= 1024

    @pytest.mark.parametrize(
        ("directory", "path"), [("/dev/shm", "in"), ("/", "proc/in"), ("/sys", "a/in"), ("/", "dev/null"), ("/etc", "hosts")]
    )
    def test_a_file_below_a_mounted_directory_is_refused(self, directory: str, path: str) -> None:
        # Given a directory over which engines mount something when the container starts
        with fake_workspace(directory) as workspace, pytest.raises(WriteFailed, match="the engine mounts /"):
            # When a file is written there, I expect a failure, since the job would never see it
            put_file(workspace, path, b"x")

    def test_a_file_below_a_link_to_a_mounted_directory_is_refused(self, new_workspace: NewWorkspace) -> None:
        # Given links in the image that lead to such a directory, one through the other
        workspace = new_workspace("/work", links=(("/work", "/root-of-all/dev/shm"), ("/root-of-all", "/")))
        with pytest.raises(WriteFailed, match="the engine mounts /dev in every container"):
            put_file(workspace, "in", b"x")

    def test_a_refusal_of_the_engine_is_a_failure(self, workspace: Workspace) -> None:
        workspace.engine.fail_next("put", EngineRefused("read-only file system"))  # type: ignore[attr-defined]
        with pytest.raises(WriteFailed, match=r'"in\.txt" cannot be written: read-only file system'):
            put_file(workspace, "in.txt", b"x")

    def test_an_unavailable_engine_does_not_fail_the_input(self, workspace: Workspace) -> None:
        workspace.engine.fail_next("put", EngineUnavailable("away"))  # type: ignore[attr-defined]
        with pytest.raises(EngineUnavailable):
            put_file(workspace, "in.txt", b"x")


def plant_pipe(workspace: Workspace) -> None:
    if isinstance(workspace.engine, workspaces.FakeEngine):
        pytest.skip("the fake engine unpacks no pipes")
    plant(workspace, "/workspace", ("pipe", tarfile.FIFOTYPE, ""))


class TestReadEvent:
    def test_strict_json_is_sent_as_json_and_other_text_as_a_string(self, workspace: Workspace) -> None:
        put_file(workspace, "json", b'{"a": [1.0, "\xc3\xa9"]}\n')
        put_file(workspace, "text", b"hello\n")
        assert read_event_content(workspace, "json") == (19, '{"a":[1.0,"é"]}')
        assert read_event_content(workspace, "text") == (6, '"hello\\n"')

    def test_the_limit_applies_to_the_encoded_content(self, workspace: Workspace) -> None:
        # Given texts of exactly 48 KiB as JSON strings, and of one byte more
        put_file(workspace, "fits", b"a" * (MAX_CONTENT_BYTES - 2))
        put_file(workspace, "over", b"a" * (MAX_CONTENT_BYTES - 1))
        # And a text that grows and JSON that shrinks when encoded
        put_file(workspace, "grows", b"\n" * (MAX_CONTENT_BYTES // 2))
        put_file(workspace, "shrinks", json.dumps({"a": "😀" * 1000}, indent=200).encode() + b" " * 100_000)
        assert read_event_content(workspace, "fits")[0] == MAX_CONTENT_BYTES - 2
        assert json.loads(read_event_content(workspace, "shrinks")[1]) == {"a": "😀" * 1000}
        for path in ("over", "grows"):
            with pytest.raises(ReadFailed, match=f'"{path}" exceeds 48 KiB when encoded in an event'):
                read_event_content(workspace, path)

    def test_a_large_file_is_not_read(self, workspace: Workspace) -> None:
        # Given a file that is too large for an event, and an engine that fails if it is read
        put_file(workspace, "large", b" " * (2 * 1024**2))
        workspace.engine.fail_next("get", AssertionError("it was read"))  # type: ignore[attr-defined]
        with pytest.raises(ReadFailed, match="exceeds 48 KiB"):
            read_event_content(workspace, "large")

    def test_content_that_is_not_utf_8_fails(self, workspace: Workspace) -> None:
        put_file(workspace, "result", b"\xff\xfe")
        with pytest.raises(ReadFailed, match='"result" is not valid UTF-8'):
            read_event_content(workspace, "result")

    @pytest.mark.parametrize(
        ("path", "words"),
        [
            ("missing", "does not exist"),
            ("file/below", "does not exist"),
            ("dangling/below", "does not exist"),
            ("circle/below", "does not exist"),
            ("directory", "is a directory, not a regular file"),
            ("link", "is a symbolic link, not a regular file"),
            ("dangling", "is a symbolic link, not a regular file"),
            ("pipe", "is a special file, not a regular file"),
        ],
    )
    def test_anything_but_a_regular_file_fails(self, new_workspace: NewWorkspace, path: str, words: str) -> None:
        workspace = new_workspace()
        plant(
            workspace,
            "/workspace",
            ("directory", tarfile.DIRTYPE, ""),
            ("file", tarfile.REGTYPE, ""),
            ("link", tarfile.SYMTYPE, "file"),
            ("dangling", tarfile.SYMTYPE, "/nowhere"),
            ("circle", tarfile.SYMTYPE, "circle"),
        )
        if path == "pipe":
            plant_pipe(workspace)
        with pytest.raises(OutputNotFound if words == "does not exist" else ReadFailed, match=f'"{path}" {words}'):
            read_event_content(workspace, path)

    @pytest.mark.parametrize("path", ["dev/shm/out", "dev/out", "proc/out", "sys/out", "link/out", "link/deep/out"])
    def test_a_file_in_a_mounted_directory_fails(self, new_workspace: NewWorkspace, path: str) -> None:
        # Given a job that wrote to a directory that the engine mounts, possibly through a link
        workspace = new_workspace("/")
        plant(workspace, "/", ("link", tarfile.SYMTYPE, "/dev/shm"))
        mounted = "/" + path.partition("/")[0].replace("link", "dev")
        with pytest.raises(ReadFailed, match=f'"{path}" cannot be read: files below {mounted} are lost when the process ends'):
            read_event_content(workspace, path)

    def test_an_empty_file_of_the_engine_fails(self, new_workspace: NewWorkspace) -> None:
        # Given an empty file that the engine left below `/dev`, and a link of the job to that directory
        workspace = new_workspace("/")
        plant(
            workspace, "/", ("dev", tarfile.DIRTYPE, ""), ("dev/console", tarfile.REGTYPE, ""), ("link", tarfile.SYMTYPE, "/dev")
        )
        # When it is an output, I expect a failure and not an empty content
        with pytest.raises(ReadFailed, match='"link/console" cannot be read: files below /dev are lost when the process ends'):
            read_event_content(workspace, "link/console")

    def test_a_file_of_the_image_below_a_mount_fails(self, new_workspace: NewWorkspace) -> None:
        # Given a file of the image that the process did not see
        workspace = new_workspace("/")
        plant(workspace, "/", ("dev", tarfile.DIRTYPE, ""))
        write_file(workspace, Target("out", "/dev", (), "out"), 0o644, 1, iter([b"x"]))
        with pytest.raises(ReadFailed, match='"dev/out" cannot be read: files below /dev are lost when the process ends'):
            read_event_content(workspace, "dev/out")

    def test_a_link_never_leads_out_of_the_container(self, new_workspace: NewWorkspace) -> None:
        # Given a job that created links to files that the host has, too
        workspace = new_workspace()
        plant(workspace, "/", ("workspace/link", tarfile.SYMTYPE, "/etc"), ("workspace/up", tarfile.SYMTYPE, "../etc"))
        # I expect the files of the container
        with open("/etc/passwd", "rb") as file:
            ours = hashlib.sha256(file.read()).digest()
        for path in ("link/passwd", "up/passwd"):
            text = json.loads(read_event_content(workspace, path)[1])
            assert hashlib.sha256(text.encode()).digest() != ours

    def test_an_unavailable_engine_does_not_fail_the_output(self, workspace: Workspace) -> None:
        put_file(workspace, "result", b"x")
        workspace.engine.fail_next("get", EngineUnavailable("away"))  # type: ignore[attr-defined]
        with pytest.raises(EngineUnavailable):
            read_event_content(workspace, "result")
