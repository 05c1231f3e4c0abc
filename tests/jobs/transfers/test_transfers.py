"""Files in a job's container: where they go, whose they are, and what of them goes into an event."""

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import pytest

from jobs.engine.protocol import User
from jobs.errors import EngineRefused, EngineUnavailable, OutputNotFound, ReadFailed, WriteFailed
from jobs.transfers import Place, prepare_workspace, put_file, read_event
from jobs.transfers.event_content import ENCODED_LIMIT
from jobs.transfers.workspace import Target, put
from tests.jobs.transfers import workspaces
from tests.jobs.transfers.workspaces import content, docker_place, entry, fake_place, mode, owner, plant

pytestmark = pytest.mark.stateless

NOBODY = User(65534, 65534)
NewPlace = Callable[..., Place]


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.engine)])
def new_place(request: pytest.FixtureRequest) -> Iterator[NewPlace]:
    """Makes containers, on each engine."""
    make: Callable[..., AbstractContextManager[Place]] = {"fake": fake_place, "docker": docker_place}[request.param]
    with ExitStack() as stack:
        yield lambda workspace="/workspace", user="", links=(): stack.enter_context(make(workspace, user, links))


@pytest.fixture
def place() -> Iterator[Place]:
    with fake_place() as one:
        yield one


class TestWorkspace:
    def test_it_belongs_to_the_images_user(self, new_place: NewPlace) -> None:
        # Given an image with a user and without the workspace
        place = new_place("/srv/deep/work", "nobody")
        # When it is prepared
        prepare_workspace(place)
        # I expect that user to own it, and the directories made for it
        assert [owner(place, path) for path in ("/srv", "/srv/deep", "/srv/deep/work")] == [NOBODY] * 3
        assert mode(place, "/srv/deep/work") == 0o755

    def test_what_the_image_has_stays_as_it_is(self, new_place: NewPlace) -> None:
        # Given an image that has the directory above the workspace
        place = new_place("/tmp/work", "nobody")
        before = (owner(place, "/tmp"), mode(place, "/tmp"))
        prepare_workspace(place)
        assert (owner(place, "/tmp"), mode(place, "/tmp")) == before
        assert owner(place, "/tmp/work") == NOBODY

    def test_a_workspace_of_the_image_is_left_alone(self, new_place: NewPlace) -> None:
        place = new_place("/tmp", "nobody")
        before = (owner(place, "/tmp"), mode(place, "/tmp"))
        prepare_workspace(place)
        assert (owner(place, "/tmp"), mode(place, "/tmp")) == before

    def test_roots_needs_nothing(self, new_place: NewPlace) -> None:
        place = new_place()
        prepare_workspace(place)
        assert owner(place, "/workspace") == User(0, 0)

    def test_an_odd_spelling_is_the_same_directory(self, new_place: NewPlace) -> None:
        place = new_place("//srv/./work/", "nobody")
        prepare_workspace(place)
        assert owner(place, "/srv/work") == NOBODY

    @pytest.mark.parametrize(
        ("workspace", "links", "made"),
        [
            ("/work", (("/work", "/data/deep"),), ["/data", "/data/deep"]),
            ("/work/below", (("/work", "data"),), ["/data", "/data/below"]),
            ("/work", (("/work", "other"), ("/other", "/tmp/new")), ["/tmp/new"]),
        ],
        ids=["absolute", "relative", "a link to a link"],
    )
    def test_what_a_link_of_the_image_leads_to_is_made(
        self, new_place: NewPlace, workspace: str, links: tuple[tuple[str, str], ...], made: list[str]
    ) -> None:
        # Given an image with a user, whose workspace is behind a link that leads to nothing
        place = new_place(workspace, "nobody", links)
        before = owner(place, "/tmp")
        # When it is prepared, and a file is put into it
        prepare_workspace(place)
        put_file(place, "in.txt", b"hello")
        # I expect the directories to be there, as that user's, and the link as it was
        assert [owner(place, path) for path in made] == [NOBODY] * len(made)
        assert content(place, f"{made[-1]}/in.txt") == b"hello"
        assert entry(place, links[0][0]).issym()
        assert owner(place, "/tmp") == before


class TestPutFile:
    def test_it_is_the_users_and_readable(self, new_place: NewPlace) -> None:
        # Given a job whose image has a user
        place = new_place(user="nobody")
        prepare_workspace(place)
        # When a file is put into its workspace
        put_file(place, "in.txt", b"hello")
        # I expect it there, as that user's
        assert content(place, "/workspace/in.txt") == b"hello"
        assert (owner(place, "/workspace/in.txt"), mode(place, "/workspace/in.txt")) == (NOBODY, 0o644)

    @pytest.mark.parametrize("given_mode", [0o600, 0o755, 0o4755, 0o000])
    def test_a_mode_is_kept(self, new_place: NewPlace, given_mode: int) -> None:
        place = new_place()
        put_file(place, "run", b"#!/bin/sh\n", given_mode)
        assert mode(place, "/workspace/run") == given_mode

    def test_directories_that_are_missing_are_made(self, new_place: NewPlace) -> None:
        place = new_place(user="nobody")
        prepare_workspace(place)
        put_file(place, "a/b/c.txt", b"deep")
        assert content(place, "/workspace/a/b/c.txt") == b"deep"
        assert [(owner(place, path), mode(place, path)) for path in ("/workspace/a", "/workspace/a/b")] == [(NOBODY, 0o755)] * 2

    def test_directories_that_exist_stay_as_they_are(self, new_place: NewPlace) -> None:
        # Given the image's /tmp, which everybody may write to
        place = new_place("/", "nobody")
        before = (owner(place, "/tmp"), mode(place, "/tmp"), owner(place, "/"), mode(place, "/"))
        # When a file is put below it
        put_file(place, "tmp/new/in.txt", b"x")
        # I expect only what is new to be the user's
        assert (owner(place, "/tmp"), mode(place, "/tmp"), owner(place, "/"), mode(place, "/")) == before
        assert owner(place, "/tmp/new") == NOBODY

    def test_two_files_share_a_directory(self, new_place: NewPlace) -> None:
        place = new_place()
        put_file(place, "a/one", b"1")
        put_file(place, "a/two", b"2")
        assert content(place, "/workspace/a/one") + content(place, "/workspace/a/two") == b"12"

    def test_putting_again_replaces(self, new_place: NewPlace) -> None:
        # Given a worker that died after it put a file
        place = new_place()
        put_file(place, "in.txt", b"the first, longer text")
        # When the next one puts it again
        put_file(place, "in.txt", b"second")
        assert content(place, "/workspace/in.txt") == b"second"

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
    def test_a_hostile_name_is_only_a_name(self, new_place: NewPlace, name: str) -> None:
        place = new_place()
        put_file(place, f"dir/{name}", b"content")
        assert read_event(place, f"dir/{name}") == (7, '"content"')

    def test_a_long_path_is_no_problem(self, new_place: NewPlace) -> None:
        place = new_place()
        path = "/".join(["d" * 100] * 10)
        put_file(place, path, b"x")
        assert read_event(place, path) == (1, '"x"')

    def test_an_odd_spelling_is_the_same_path(self, new_place: NewPlace) -> None:
        place = new_place("/workspace/")
        put_file(place, "./a//b", b"x")
        assert content(place, "/workspace/a/b") == b"x"

    def test_a_linked_directory_is_followed_inside_the_container(self, new_place: NewPlace) -> None:
        # Given an image in which a part of the path is a link, and an absolute one
        place = new_place()
        plant(place, "/workspace", ("link", tarfile.SYMTYPE, "/tmp"))
        # When files are put below it
        put_file(place, "link/one", b"1")
        put_file(place, "link/new/two", b"2")
        # I expect them where it leads in the container, and the link still there
        assert content(place, "/tmp/one") + content(place, "/tmp/new/two") == b"12"
        assert entry(place, "/workspace/link").issym()

    def test_a_link_at_the_target_is_replaced_and_not_followed(self, new_place: NewPlace) -> None:
        place = new_place()
        plant(place, "/workspace", ("link", tarfile.SYMTYPE, "/etc/passwd"))
        put_file(place, "link", b"mine")
        assert content(place, "/workspace/link") == b"mine"
        assert b"root" in content(place, "/etc/passwd")

    @pytest.mark.parametrize(
        ("path", "words"),
        [
            ("directory", "directory"),
            ("file/below", "no directory"),
            ("file/far/below", "no directory"),
            ("dangling/below", "no directory"),
            ("dangling/far/below", "no directory"),
            ("filelink/below", "directory"),
            ("filelink/far/below", "directory"),
            ("circle/below", "directory"),
            ("pipe/below", "no directory"),
        ],
    )
    def test_what_is_in_the_way_is_a_failure_that_says_so(self, new_place: NewPlace, path: str, words: str) -> None:
        place = new_place()
        plant(
            place,
            "/workspace",
            ("directory", tarfile.DIRTYPE, ""),
            ("directory/kept", tarfile.REGTYPE, ""),
            ("file", tarfile.REGTYPE, ""),
            ("dangling", tarfile.SYMTYPE, "/nowhere"),
            ("filelink", tarfile.SYMTYPE, "file"),
            ("circle", tarfile.SYMTYPE, "circle"),
        )
        if path.startswith("pipe"):
            plant_pipe(place)
        with pytest.raises(WriteFailed, match=words) as failure:
            put_file(place, path, b"x")
        assert path in str(failure.value)
        assert entry(place, "/workspace/directory/kept").isreg()

    @pytest.mark.parametrize("path", ["../out", "a/../../out", "", ".", "/", "x" * 256, "a/" * 3000 + "b", "\x01😀" * 300])
    def test_a_path_that_the_front_door_should_have_refused_is_refused(self, place: Place, path: str) -> None:
        with pytest.raises(WriteFailed) as failure:
            put_file(place, path, b"x")
        assert len(str(failure.value).encode()) <= 1024

    @pytest.mark.parametrize(
        ("workspace", "path"), [("/dev/shm", "in"), ("/", "proc/in"), ("/sys", "a/in"), ("/", "dev/null"), ("/etc", "hosts")]
    )
    def test_a_file_that_the_job_would_never_see_is_refused(self, workspace: str, path: str) -> None:
        # Given a place over which engines mount something when the container starts
        with fake_place(workspace) as place, pytest.raises(WriteFailed, match="the engine has its own /"):
            # When a file is to go there, I expect it to fail, and not to be lost without a word
            put_file(place, path, b"x")

    def test_neither_is_it_put_there_through_a_link(self, new_place: NewPlace) -> None:
        # Given links in the image that lead to such a place, the one through the other
        place = new_place("/work", links=(("/work", "/root-of-all/dev/shm"), ("/root-of-all", "/")))
        with pytest.raises(WriteFailed, match="the engine has its own /dev in every container"):
            put_file(place, "in", b"x")

    def test_what_the_engine_refuses_is_a_failure(self, place: Place) -> None:
        place.engine.fail_next("put", EngineRefused("read-only file system"))  # type: ignore[attr-defined]
        with pytest.raises(WriteFailed, match=r'"in\.txt" cannot be put there: read-only file system'):
            put_file(place, "in.txt", b"x")

    def test_an_engine_that_does_not_answer_is_no_failure_of_the_file(self, place: Place) -> None:
        place.engine.fail_next("put", EngineUnavailable("away"))  # type: ignore[attr-defined]
        with pytest.raises(EngineUnavailable):
            put_file(place, "in.txt", b"x")


def plant_pipe(place: Place) -> None:
    if isinstance(place.engine, workspaces.FakeEngine):
        pytest.skip("the fake engine unpacks no pipes")
    plant(place, "/workspace", ("pipe", tarfile.FIFOTYPE, ""))


class TestReadEvent:
    def test_strict_json_goes_as_it_is_and_everything_else_as_a_string(self, place: Place) -> None:
        put_file(place, "json", b'{"a": [1.0, "\xc3\xa9"]}\n')
        put_file(place, "text", b"hello\n")
        assert read_event(place, "json") == (19, '{"a":[1.0,"é"]}')
        assert read_event(place, "text") == (6, '"hello\\n"')

    def test_the_limit_is_on_what_the_event_holds(self, place: Place) -> None:
        # Given texts that as JSON strings are just 48 KiB, and one byte more
        put_file(place, "fits", b"a" * (ENCODED_LIMIT - 2))
        put_file(place, "over", b"a" * (ENCODED_LIMIT - 1))
        # And one that grows, and JSON that shrinks as it is encoded
        put_file(place, "grows", b"\n" * (ENCODED_LIMIT // 2))
        put_file(place, "shrinks", json.dumps({"a": "😀" * 1000}, indent=200).encode() + b" " * 100_000)
        assert read_event(place, "fits")[0] == ENCODED_LIMIT - 2
        assert json.loads(read_event(place, "shrinks")[1]) == {"a": "😀" * 1000}
        for path in ("over", "grows"):
            with pytest.raises(ReadFailed, match=f'"{path}" has more than 48 KiB as encoded in an event'):
                read_event(place, path)

    def test_a_large_file_is_not_even_read(self, place: Place) -> None:
        # Given a file that can be no event, and an engine that would refuse to give it
        put_file(place, "large", b" " * (2 * 1024**2))
        place.engine.fail_next("get", AssertionError("it was read"))  # type: ignore[attr-defined]
        with pytest.raises(ReadFailed, match="more than 48 KiB"):
            read_event(place, "large")

    def test_what_is_not_utf8_fails_and_says_so(self, place: Place) -> None:
        put_file(place, "result", b"\xff\xfe")
        with pytest.raises(ReadFailed, match='"result" is not valid UTF-8'):
            read_event(place, "result")

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
            ("pipe", "is a device or the like, not a regular file"),
        ],
    )
    def test_only_a_regular_file_is_one(self, new_place: NewPlace, path: str, words: str) -> None:
        place = new_place()
        plant(
            place,
            "/workspace",
            ("directory", tarfile.DIRTYPE, ""),
            ("file", tarfile.REGTYPE, ""),
            ("link", tarfile.SYMTYPE, "file"),
            ("dangling", tarfile.SYMTYPE, "/nowhere"),
            ("circle", tarfile.SYMTYPE, "circle"),
        )
        if path == "pipe":
            plant_pipe(place)
        with pytest.raises(OutputNotFound if words == "does not exist" else ReadFailed, match=f'"{path}" {words}'):
            read_event(place, path)

    @pytest.mark.parametrize("path", ["dev/shm/out", "dev/out", "proc/out", "sys/out", "link/out", "link/deep/out"])
    def test_a_file_that_ended_with_its_process_says_so(self, new_place: NewPlace, path: str) -> None:
        # Given a job that wrote to where the engine mounts its own, if only by a link
        place = new_place("/")
        plant(place, "/", ("link", tarfile.SYMTYPE, "/dev/shm"))
        mounted = "/" + path.partition("/")[0].replace("link", "dev")
        with pytest.raises(ReadFailed, match=f'"{path}" cannot be taken out: files below {mounted} end with the process'):
            read_event(place, path)

    def test_neither_is_what_the_engine_has_there_taken_for_it(self, new_place: NewPlace) -> None:
        # Given an empty file of the engine's below `/dev`, and a link of the job's to that directory
        place = new_place("/")
        plant(place, "/", ("dev", tarfile.DIRTYPE, ""), ("dev/console", tarfile.REGTYPE, ""), ("link", tarfile.SYMTYPE, "/dev"))
        # When it is an output, I expect it to fail, and not to be an empty success
        with pytest.raises(ReadFailed, match='"link/console" cannot be taken out: files below /dev end with the process'):
            read_event(place, "link/console")

    def test_nor_is_a_file_that_the_image_has_there(self, new_place: NewPlace) -> None:
        # Given a file of the image's that the process did not see
        place = new_place("/")
        plant(place, "/", ("dev", tarfile.DIRTYPE, ""))
        put(place, Target("out", "/dev", (), "out"), 0o644, 1, iter([b"x"]))
        with pytest.raises(ReadFailed, match='"dev/out" cannot be taken out: files below /dev end with the process'):
            read_event(place, "dev/out")

    def test_a_link_on_the_way_leads_nowhere_outside(self, new_place: NewPlace) -> None:
        # Given a job that planted links to what would be the machine's own files
        place = new_place()
        plant(place, "/", ("workspace/link", tarfile.SYMTYPE, "/etc"), ("workspace/up", tarfile.SYMTYPE, "../etc"))
        # I expect the container's
        with open("/etc/passwd", "rb") as file:
            ours = hashlib.sha256(file.read()).digest()
        for path in ("link/passwd", "up/passwd"):
            text = json.loads(read_event(place, path)[1])
            assert hashlib.sha256(text.encode()).digest() != ours

    def test_an_engine_that_breaks_off_is_no_failure_of_the_file(self, place: Place) -> None:
        put_file(place, "result", b"x")
        place.engine.fail_next("get", EngineUnavailable("away"))  # type: ignore[attr-defined]
        with pytest.raises(EngineUnavailable):
            read_event(place, "result")
