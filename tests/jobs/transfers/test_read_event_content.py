"""Files whose content is sent in an event."""

import hashlib
import json
import tarfile

import pytest

from jobs.errors import EngineUnavailable, OutputNotFound, ReadFailed
from jobs.transfers import Workspace, put_file, read_event_content
from jobs.transfers.event_content import MAX_CONTENT_BYTES
from jobs.transfers.workspace import Target, write_file
from tests.fake_engine import FakeEngine
from tests.jobs.transfers.workspaces import (
    NewWorkspace,
    plant,
    plant_pipe,
)

pytestmark = pytest.mark.stateless


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

    @pytest.mark.parametrize("name", ["a" * 255, "é" * 127, "\u202e", "a\nb", "hard link"])
    def test_unusual_files_are_read(self, new_workspace: NewWorkspace, name: str) -> None:
        # Given a file with a name that is unusual, or a second one
        workspace = new_workspace()
        put_file(workspace, "file" if name == "hard link" else name, b"x")
        if name == "hard link":
            if isinstance(workspace.engine, FakeEngine):
                pytest.skip("the fake engine unpacks no hard links")
            plant(workspace, "/workspace", (name, tarfile.LNKTYPE, "file"))
        # I expect its content
        assert read_event_content(workspace, name) == (1, '"x"')

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
