"""The user of an image's containers, which is looked up once for each image."""

import io
import tarfile

import pytest

from jobs.engine.docker.container_files import ContainerFiles
from jobs.engine.docker.transport import EngineClient
from jobs.engine.protocol import User
from orchestrator_site.base.intervals import EngineIntervals
from tests.helpers.engines import DockerBench, shell
from tests.jobs.engine.docker.scripted_daemon import ScriptedDaemon, answer, chunked

# Not on the fake engine: its processes run on this machine, and would change its own /etc/passwd.
pytestmark = pytest.mark.stateless


@pytest.mark.engine
def test_no_process_decides_which_user_others_of_its_image_have(docker_bench: DockerBench) -> None:
    # Given a process that has changed its user's group, and an engine that was not asked for another user of the image
    image = docker_bench.image_with(user="root")
    changer = docker_bench.ended(shell("echo root:x:0:99::/:/bin/sh > /etc/passwd"), image=image)
    assert docker_bench.engine.resolve_user(changer) == User(0, 99)

    # I expect the image's group in the next container
    assert docker_bench.engine.resolve_user(docker_bench.created(image=image)) == User(0, 0)


@pytest.mark.engine
def test_a_user_is_looked_up_once_for_each_image(docker_bench: DockerBench, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an engine that was asked for the user of a container
    image = docker_bench.image_with(user="nobody")
    expected = docker_bench.engine.resolve_user(docker_bench.created(image=image))

    # When it is asked for that of another container of the image
    monkeypatch.setattr(ContainerFiles, "_read_text", lambda *_: pytest.fail("read again"))

    # I expect the same without reading a file
    assert docker_bench.engine.resolve_user(docker_bench.created(image=image)) == expected == User(65534, 65534)


def file_answer(text: str) -> bytes:
    """Return the answer to a request for a file."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("passwd")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text.encode()))
    return chunked(archive.getvalue())


def files_of(daemon: ScriptedDaemon) -> ContainerFiles:
    daemon.close_after_answer = False  # the client keeps its connection for the next call
    return ContainerFiles(EngineClient(daemon.host, EngineIntervals()))


def user_of(files: ContainerFiles) -> User:
    return files.resolve_user("job", "app", "sha256:0", changed=False)


@pytest.mark.parametrize(
    "failure",
    [
        answer(500, {"message": "layer not retained"}),
        answer(400, {"message": "bad request"}),
        chunked(b"no archive"),
        chunked(b""),
    ],
    ids=["unknown error", "refused", "no archive", "empty"],
)
def test_a_user_is_not_remembered_from_a_file_that_was_not_read(daemon: ScriptedDaemon, failure: bytes) -> None:
    # Given an engine that could not show the users of an image
    files = files_of(daemon)
    daemon.answers["/archive"] = failure
    assert user_of(files) == User(0, 0)

    # When it can again
    daemon.answers["/archive"] = file_answer("app:x:1000:1001::/:/bin/sh\n")

    # I expect the image's user
    assert user_of(files) == User(1000, 1001)


def test_the_target_of_a_link_need_not_be_utf_8(daemon: ScriptedDaemon) -> None:
    # Given an image whose /etc/passwd is a link, to a name that an engine sends as it is
    link = tarfile.TarInfo("passwd")
    link.type, link.linkname = tarfile.SYMTYPE, "\udcff\udcfe"
    daemon.answers["path=%2Fetc%2Fpasswd"] = chunked(link.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + bytes(1024))
    daemon.answers["path=%2Fetc%2F%FF%FE"] = file_answer("app:x:1000:1001::/:/bin/sh\n")

    # When its user is looked up, I expect that of the file with this name
    assert user_of(files_of(daemon)) == User(1000, 1001)


def test_the_user_of_an_image_without_users_is_looked_up_once(daemon: ScriptedDaemon) -> None:
    files = files_of(daemon)
    daemon.answers["/archive"] = answer(404, {"message": "Could not find the file /etc/passwd in container job"})

    assert user_of(files) == user_of(files) == User(0, 0)

    assert daemon.count("/archive") == 1
