"""Pulls that fail, and whether the registry, the image or the engine is at fault."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest

from jobs.engine.docker import DockerEngine
from jobs.engine.docker.disk import MeasuredUse
from jobs.engine.image_errors import explain
from jobs.engine.protocol import DiskSpace
from jobs.errors import EngineUnavailable, ImageUnavailable
from jobs.interrupt import Interrupt
from tests.helpers.engines import FakeBench
from tests.jobs.engine.docker.scripted_daemon import EARLY, MIDDLE, ScriptedDaemon, answer, chunked, networks
from tests.jobs.engine.test_engine_images import Watched

pytestmark = pytest.mark.stateless


def test_a_pull_that_breaks_off_says_nothing_about_the_image(daemon: ScriptedDaemon) -> None:
    daemon.answers["/json"] = answer(404, {"message": "No such image"})
    daemon.answers["/images/create"] = chunked(b'{"status": "Pulling"}\r\n', end=False)

    with pytest.raises(EngineUnavailable):
        pull(DockerEngine(daemon.host))


def pull(engine: DockerEngine) -> None:
    engine.ensure_image("alpine", "missing", 10, Interrupt())


ENGINE_TROUBLE = [
    "failed to register layer: write /usr/lib/x.so: no space left on device",
    "failed to register layer: fork/exec /proc/self/exe: resource temporarily unavailable",
    "error creating temporary lease: rpc error: code = Unavailable desc = transport is closing",
    'failed to dial "/run/containerd/containerd.sock": context deadline exceeded',
    "open /var/lib/docker/tmp/GetImageBlob1: too many open files",
    "context canceled",
    "daemon is shutting down",
]
REGISTRY_ERRORS = [
    "pull access denied for containerd, repository does not exist or may require 'docker login'",
    "manifest for alpine:latest not found: manifest unknown",
    'Get "https://registry.example.com/v2/": dial tcp 192.0.2.1:443: connect: connection refused',
    'Get "https://registry.example.com/v2/": context deadline exceeded',
    "received unexpected HTTP status: 500 Internal Server Error: connection error",
    "toomanyrequests: You have reached your pull rate limit",
    "no matching manifest for linux/arm64/v8 in the manifest list entries",
    "unknown: no space left on device",
    'Head "https://registry.example.com/v2/library/alpine/manifests/1": no basic auth credentials',
]
for_each_status = pytest.mark.parametrize("status", [200, 404, 500])


def failed_pull(status: int, message: str) -> bytes:
    """Return a failed answer, or a successful one whose progress ends with the error."""
    if status != 200:
        return answer(status, {"message": message})
    line = {"errorDetail": {"message": message}, "error": message}
    return chunked(b'{"status": "Pulling"}\r\n', json.dumps(line).encode() + b"\r\n")


@for_each_status
@pytest.mark.parametrize("message", ENGINE_TROUBLE)
def test_engine_trouble_says_nothing_about_the_image(daemon: ScriptedDaemon, status: int, message: str) -> None:
    daemon.answers["/json"] = answer(404, {"message": "No such image"})
    daemon.answers["/images/create"] = failed_pull(status, message)

    with pytest.raises(EngineUnavailable) as caught:
        pull(DockerEngine(daemon.host))

    assert str(caught.value) == message


@for_each_status
@pytest.mark.parametrize("message", REGISTRY_ERRORS)
def test_a_registry_error_is_explained_in_our_own_words(daemon: ScriptedDaemon, status: int, message: str) -> None:
    daemon.answers["/json"] = answer(404, {"message": "No such image"})
    daemon.answers["/images/create"] = failed_pull(status, message)

    with pytest.raises(ImageUnavailable) as caught:
        pull(DockerEngine(daemon.host))

    assert str(caught.value) == explain(message, "alpine:latest")
    assert message not in str(caught.value)


def test_the_name_of_an_image_is_not_taken_for_engine_trouble(daemon: ScriptedDaemon) -> None:
    daemon.answers["/json"] = answer(404, {"message": "No such image"})
    message = 'Head "https://registry.example/v2/x/containerd.sock/manifests/1": no basic auth credentials'
    daemon.answers["/images/create"] = failed_pull(500, message)

    with pytest.raises(ImageUnavailable, match="credentials"):
        DockerEngine(daemon.host).ensure_image("registry.example/x/containerd.sock:1", "missing", 10, Interrupt())


def test_engine_trouble_is_reported_to_all_who_share_the_pull(daemon: ScriptedDaemon) -> None:
    # Given an engine whose disk is full, and two jobs that wait for one pull
    engine = DockerEngine(daemon.host)
    daemon.answers["/json"] = answer(404, {"message": "No such image"})
    daemon.answers["/images/create"] = failed_pull(200, ENGINE_TROUBLE[0])
    daemon.may_answer.clear()
    interrupts = [Watched(), Watched()]
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(engine.ensure_image, "alpine", "always", 30, interrupt) for interrupt in interrupts]
        for interrupt in interrupts:
            assert interrupt.blocked.wait(30)

        # When it fails
        daemon.may_answer.set()

        # I expect both to fail
        for future in futures:
            with pytest.raises(EngineUnavailable, match="no space left"):
                future.result(30)
    assert daemon.count("/images/create") == 1

    # And a new pull when there is space again
    daemon.answers |= {"/json": answer(200, {}), "/images/create": chunked(b'{"status": "Pull complete"}\r\n')}
    engine.ensure_image("alpine", "always", 30, Interrupt())
    assert daemon.count("/images/create") == 2


def test_an_image_deleted_right_after_its_pull_is_no_error(daemon: ScriptedDaemon) -> None:
    # Given a pull that succeeds, and no image after it
    daemon.answers |= {
        "/images/create": chunked(b'{"status": "Pull complete"}\r\n'),
        "/images/": answer(404, {"message": "No such image: alpine:latest"}),
    }

    # I expect no error, which would end the job: `create` raises it, and the image is pulled again
    DockerEngine(daemon.host).ensure_image("alpine", "always", 30, Interrupt())


@pytest.mark.parametrize("message", ["failed to copy: failed to send write: EOF", "connection error: desc = x", "nonsense"])
def test_a_pull_during_a_restart_says_nothing_about_the_image(daemon: ScriptedDaemon, message: str) -> None:
    # Given an engine that is restarted while it pulls, and reports any error
    def restart() -> bytes:
        daemon.answers["/networks"] = answer(200, networks(MIDDLE))
        return failed_pull(200, message)

    daemon.answers |= {"/networks": answer(200, networks(EARLY)), "/images/create": restart}

    # I expect
    with pytest.raises(EngineUnavailable, match="restarted"):
        DockerEngine(daemon.host).ensure_image("alpine", "always", 10, Interrupt())
    assert daemon.count("/images/create") == 1


@pytest.mark.parametrize(("free", "is_pulled"), [(4 * 1024**3, True), (4 * 1024**3 - 1, False)])
def test_an_image_is_not_pulled_into_the_reserve_of_a_disk(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch, free: int, is_pulled: bool
) -> None:
    # Given a pull on a disk that has so much space left
    size = 1024**4
    monkeypatch.setattr(MeasuredUse, "space", lambda _: DiskSpace(size=size, used=size - free, free=free))
    looks = iter([answer(404, {"message": "No such image"}), answer(200, {"Id": "0"})])
    daemon.answers["/json"] = lambda: next(looks)
    daemon.answers["/images/create"] = chunked(b'{"status": "Extracting"}\r\n')
    engine = DockerEngine(daemon.host)

    # I expect it to be ended before any job has to be
    with nullcontext() if is_pulled else pytest.raises(EngineUnavailable, match="almost full"):
        pull(engine)


def test_a_pull_on_a_stopping_engine_says_nothing_about_the_image(daemon: ScriptedDaemon) -> None:
    # Given an engine that is stopped while it pulls: it refuses new connections before it ends the pull
    def stop() -> bytes:
        daemon.refuse()
        return failed_pull(200, "failed to copy: failed to send write: EOF")

    daemon.answers["/images/create"] = stop

    # I expect
    with pytest.raises(EngineUnavailable, match="does not answer"):
        DockerEngine(daemon.host).ensure_image("alpine", "always", 10, Interrupt())


def test_a_pull_that_breaks_off_with_containerd_is_retried(daemon: ScriptedDaemon) -> None:
    # Given an engine whose containerd is restarted while it pulls
    answers = [failed_pull(200, "failed to copy: failed to send write: EOF"), chunked(b'{"status": "Pull complete"}\r\n')]
    daemon.answers |= {"/images/create": lambda: answers.pop(0), "/images/": answer(200, {"Config": {}})}

    # I expect no error
    DockerEngine(daemon.host).ensure_image("alpine", "always", 10, Interrupt())
    assert daemon.count("/images/create") == 2


@pytest.mark.parametrize(("status", "pulls"), [(404, 1), (200, 2)])
def test_a_failed_pull_is_retried_only_if_it_had_begun(daemon: ScriptedDaemon, status: int, pulls: int) -> None:
    daemon.answers["/images/create"] = failed_pull(status, REGISTRY_ERRORS[1])

    with pytest.raises(ImageUnavailable):
        DockerEngine(daemon.host).ensure_image("alpine", "always", 10, Interrupt())

    assert daemon.count("/images/create") == pulls


def test_an_image_with_a_huge_configuration_is_refused(daemon: ScriptedDaemon) -> None:
    # Given an image with more labels than every inspection of its containers should return
    labels = {f"label-{number}": "x" * 1000 for number in range(140)}
    daemon.answers |= {
        "/images/create": chunked(b'{"status": "Pull complete"}\r\n'),
        "/images/": answer(200, {"Config": {"Labels": labels}}),
    }

    with pytest.raises(ImageUnavailable, match="larger than 128 KiB"):
        DockerEngine(daemon.host).ensure_image("alpine", "always", 30, Interrupt())
    with pytest.raises(ImageUnavailable, match="larger than 128 KiB"):
        pull(DockerEngine(daemon.host))


@pytest.fixture
def found_image(daemon: ScriptedDaemon) -> DockerEngine:
    """An engine on which an image was found."""
    daemon.answers |= {
        "/version": answer(200, {"ApiVersion": "1.41", "Arch": "amd64"}),
        "/images/": answer(200, {"Id": "sha256:0", "Config": {"Cmd": ["true"]}}),
        "orchestrator-init": answer(404, {"message": "No such container"}),
    }
    engine = DockerEngine(daemon.host)
    assert not engine.needs_pull("alpine", "missing")
    return engine


def test_an_image_that_has_been_deleted_needs_a_pull(
    daemon: ScriptedDaemon, fake_bench: FakeBench, found_image: DockerEngine
) -> None:
    # Given that it is deleted, which a job without a command notices
    daemon.answers["/images/"] = answer(404, {"message": "No such image: alpine"})
    with pytest.raises(ImageUnavailable):
        found_image.create(fake_bench.spec(None, image="alpine"))

    assert found_image.needs_pull("alpine", "missing")


def test_a_command_is_not_taken_from_a_huge_configuration(
    daemon: ScriptedDaemon, fake_bench: FakeBench, found_image: DockerEngine
) -> None:
    # Given that its name is moved to an image with a huge configuration
    huge = {"Cmd": ["true"], "Labels": {"x": "x" * 140_000}}
    daemon.answers["/images/"] = answer(200, {"Id": "sha256:1", "Config": huge})

    # I expect it to be refused when it is used, and when it is looked for again
    with pytest.raises(ImageUnavailable, match="larger than 128 KiB"):
        found_image.create(fake_bench.spec(None, image="alpine"))
    with pytest.raises(ImageUnavailable, match="larger than 128 KiB"):
        found_image.needs_pull("alpine", "missing")


def test_unreadable_progress_of_a_pull_is_ignored(daemon: ScriptedDaemon) -> None:
    daemon.answers |= {"/json": answer(404, {"message": "No such image"}), "/images/create": chunked(b"[" * 200_000, b"\n")}

    pull(DockerEngine(daemon.host))
