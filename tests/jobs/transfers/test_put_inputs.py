"""Files that are put into a container: their paths, owners and modes."""

import tarfile

import pytest

from jobs.engine.protocol import User
from jobs.errors import EngineRefused, EngineUnavailable, WriteFailed
from jobs.transfers import Workspace, prepare_workspace, put_file, read_event_content
from tests.jobs.transfers.workspaces import (
    NewWorkspace,
    content,
    entry,
    fake_workspace,
    mode,
    owner,
    plant,
    plant_pipe,
)

pytestmark = pytest.mark.stateless

NOBODY = User(65534, 65534)


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

    def test_a_workspace_path_is_normalized(self, new_workspace: NewWorkspace) -> None:
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

    def test_a_path_is_normalized(self, new_workspace: NewWorkspace) -> None:
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
