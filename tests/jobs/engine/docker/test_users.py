"""The user of an image's containers, which is looked up once for each image."""

import pytest

from jobs.engine.docker.container_files import ContainerFiles
from jobs.engine.protocol import User
from tests.helpers.engines import DockerBench, shell

# Not on the fake engine: its processes run on this machine, and would change its own /etc/passwd.
pytestmark = [pytest.mark.stateless, pytest.mark.engine]


def test_no_process_decides_which_user_others_of_its_image_have(docker_bench: DockerBench) -> None:
    # Given a process that has changed its user's group, and an engine that was not asked for another user of the image
    image = docker_bench.image_with(user="root")
    changer = docker_bench.ended(shell("echo root:x:0:99::/:/bin/sh > /etc/passwd"), image=image)
    assert docker_bench.engine.resolve_user(changer) == User(0, 99)

    # I expect the image's group in the next container
    assert docker_bench.engine.resolve_user(docker_bench.created(image=image)) == User(0, 0)


def test_a_user_is_looked_up_once_for_each_image(docker_bench: DockerBench, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an engine that was asked for the user of a container
    image = docker_bench.image_with(user="nobody")
    expected = docker_bench.engine.resolve_user(docker_bench.created(image=image))

    # When it is asked for that of another container of the image
    monkeypatch.setattr(ContainerFiles, "_read_text", lambda *_: pytest.fail("read again"))

    # I expect the same without reading a file
    assert docker_bench.engine.resolve_user(docker_bench.created(image=image)) == expected == User(65534, 65534)
