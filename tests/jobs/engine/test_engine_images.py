"""The contract of every engine: images, pull policies, and shared pulls."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs.engine.protocol import PullPolicy
from jobs.engine.shared_pulls import SharedPulls
from jobs.errors import ImageUnavailable, Interrupted
from jobs.interrupt import Interrupt
from tests.helpers import built_images, registries
from tests.helpers.engines import TEST_LABEL, Bench, DockerBench
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.stateless


@pytest.fixture
def bench(bench: Bench) -> Bench:
    """Return an engine that pulls images when it is asked to."""
    if bench.engine.traits.pulls_at_start:
        pytest.skip("the engine pulls an image when a container starts")
    return bench


class Watched(Interrupt):
    """An interrupt that reports when a call is blocked under it."""

    def __init__(self) -> None:
        super().__init__()
        self.blocked = threading.Event()

    @contextmanager
    def waking(self, waker: Callable[[], object]) -> Iterator[None]:
        with super().waking(waker):
            self.blocked.set()
            yield


# -- policies ------------------------------------------------------------------------------------------------


def ensure(bench: Bench, reference: str, policy: Any = "missing", timeout: float = 60) -> None:
    bench.engine.ensure_image(reference, policy, timeout, Interrupt())


def is_here(bench: Bench, reference: str) -> bool:
    try:
        ensure(bench, reference, "never")
    except ImageUnavailable:
        return False
    return True


def test_a_missing_image_is_pulled(bench: Bench) -> None:
    reference = bench.publish()
    assert not is_here(bench, reference)

    ensure(bench, reference)

    assert is_here(bench, reference)
    bench.created(image=reference)


def test_an_existing_image_is_pulled_only_with_policy_always(bench: Bench) -> None:
    reference = bench.image_with()

    ensure(bench, reference)
    ensure(bench, reference, "never")
    with pytest.raises(ImageUnavailable):
        ensure(bench, reference, "always")


def test_a_reference_without_a_tag_means_latest(bench: Bench) -> None:
    ensure(bench, "alpine", "never")
    bench.created(image="alpine")


def test_an_unknown_tag_is_not_found(bench: Bench) -> None:
    reference = bench.publish().removesuffix(":1") + ":2"

    with pytest.raises(ImageUnavailable, match="was not found"):
        ensure(bench, reference)


@pytest.mark.parametrize("reference", ["UPPER", "image:", "http://host/image", "", "a b"])
def test_a_malformed_reference_is_an_unavailable_image(bench: Bench, reference: str) -> None:
    with pytest.raises(ImageUnavailable):
        ensure(bench, reference)
    with pytest.raises(ImageUnavailable):
        bench.created(image=reference)


@pytest.mark.parametrize("command", [("true",), None])
def test_a_deleted_image_is_looked_for_again(bench: Bench, command: tuple[str, ...] | None) -> None:
    # Given an image that was found, and deleted
    reference = bench.publish()
    ensure(bench, reference)
    assert not bench.engine.needs_pull(reference, "missing")
    bench.delete_image(reference)

    # When it is used, with a command or with its own
    with pytest.raises(ImageUnavailable):
        bench.created(command, image=reference)

    # I expect that it has to be pulled again
    assert bench.engine.needs_pull(reference, "missing")
    ensure(bench, reference)
    bench.created(image=reference)


@pytest.mark.parametrize(("policy", "expected"), [("missing", False), ("never", False), ("always", True)])
def test_an_image_on_the_engine_needs_no_pull_unless_always(bench: Bench, policy: PullPolicy, expected: bool) -> None:
    assert bench.engine.needs_pull("alpine", policy) == expected


# -- shared pulls ----------------------------------------------------------------------------------------


def pulling(bench: Bench, pool: ThreadPoolExecutor, reference: str, timeout: float = 60) -> tuple[Future[None], Watched]:
    """Start a pull in a thread, wait until it is blocked, and return its future and its interrupt."""
    interrupt = Watched()
    future = pool.submit(bench.engine.ensure_image, reference, "missing", timeout, interrupt)
    assert interrupt.blocked.wait(30)
    return future, interrupt


def test_simultaneous_pulls_of_one_image_share_one_pull(bench: Bench) -> None:
    with bench.held_pulls() as pulls, ThreadPoolExecutor(5) as pool:
        futures = [pulling(bench, pool, pulls.reference)[0] for _ in range(5)]
        wait_for(lambda: pulls.count())
        assert pulls.count() == 1

        pulls.release()

        for future in futures:
            with pytest.raises(ImageUnavailable):
                future.result(30)


def test_an_interrupted_caller_leaves_a_shared_pull_at_once(bench: Bench) -> None:
    with bench.held_pulls() as pulls, ThreadPoolExecutor(2) as pool:
        first, interrupt = pulling(bench, pool, pulls.reference)
        second, _ = pulling(bench, pool, pulls.reference)

        interrupt.wake()

        with pytest.raises(Interrupted):
            first.result(10)
        assert not second.done()
        pulls.release()
        with pytest.raises(ImageUnavailable, match=r"not found|cannot be reached"):
            second.result(30)


def test_a_pull_that_takes_too_long_is_an_unavailable_image(bench: Bench) -> None:
    with bench.held_pulls() as pulls, pytest.raises(ImageUnavailable, match=r"longer than 0\.2 seconds"):
        ensure(bench, pulls.reference, timeout=0.2)


def test_a_pull_is_aborted_when_its_last_caller_leaves() -> None:
    aborted, interrupt = threading.Event(), Interrupt()
    threading.Timer(0.1, interrupt.wake).start()

    def pull(abort: Interrupt) -> None:
        with abort.waking(aborted.set):
            aborted.wait(30)

    with pytest.raises(Interrupted):
        SharedPulls().share("image", pull, 60, interrupt)

    assert aborted.wait(10)


def test_a_pull_after_a_failed_one_starts_anew() -> None:
    pulls, outcomes = SharedPulls(), iter([ImageUnavailable("no"), None])

    def pull(abort: Interrupt) -> None:
        if outcome := next(outcomes):
            raise outcome

    with pytest.raises(ImageUnavailable):
        pulls.share("image", pull, 60, Interrupt())
    pulls.share("image", pull, 60, Interrupt())


# -- Docker only -----------------------------------------------------------------------------------------------


@pytest.mark.engine
def test_policy_always_fetches_the_current_tag(docker_bench: DockerBench) -> None:
    reference = docker_bench.publish()
    ensure(docker_bench, reference)
    old = built_images.id_of(docker_bench.host, reference)
    docker_bench.republish(reference)
    built_images.tag(docker_bench.host, old, reference)

    ensure(docker_bench, reference)
    assert built_images.id_of(docker_bench.host, reference) == old
    ensure(docker_bench, reference, "always")
    assert built_images.id_of(docker_bench.host, reference) != old


@pytest.mark.engine
def test_an_image_is_pulled_by_its_digest(docker_bench: DockerBench) -> None:
    reference = docker_bench.publish()
    ensure(docker_bench, reference)
    by_digest = built_images.digest_of(docker_bench.host, reference)
    built_images.remove(docker_bench.host, reference)
    assert not is_here(docker_bench, by_digest)

    ensure(docker_bench, by_digest)

    docker_bench.created(image=by_digest)


@pytest.mark.engine
def test_only_the_requested_tag_is_pulled(docker_bench: DockerBench) -> None:
    repository = docker_bench.publish().removesuffix(":1")
    docker_bench.republish(f"{repository}:latest")
    built_images.remove(docker_bench.host, f"{repository}:latest")

    ensure(docker_bench, repository)

    assert is_here(docker_bench, f"{repository}:latest")
    assert not is_here(docker_bench, f"{repository}:1")


@pytest.mark.engine
def test_an_unreachable_registry_is_reported(docker_bench: DockerBench) -> None:
    with pytest.raises(ImageUnavailable, match="cannot be reached"):
        ensure(docker_bench, "127.0.0.1:9/image")


@pytest.fixture
def private(tmp_path: Path, docker_bench: DockerBench) -> Iterator[str]:
    """Return the reference of an image in a registry that requires credentials."""
    with registries.serve(tmp_path / "registry", private=True) as address:
        here = built_images.import_busybox(docker_bench.host, f"{TEST_LABEL}/private:latest")
        reference = f"{address}/private:1"
        built_images.push(docker_bench.host, here, reference, username=registries.USER, password=registries.PASSWORD)
        built_images.remove(docker_bench.host, reference)
        built_images.remove(docker_bench.host, here)
        yield reference
        built_images.remove(docker_bench.host, reference)


def write_docker_config(directory: Path, host: str, password: str) -> None:
    auth = base64.b64encode(f"{registries.USER}:{password}".encode()).decode()
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


@pytest.mark.engine
def test_credentials_come_from_the_docker_config(
    docker_bench: DockerBench, private: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = private.partition("/")[0]
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))

    with pytest.raises(ImageUnavailable, match="has none for it"):
        ensure(docker_bench, private)
    write_docker_config(tmp_path / "docker", host, "wrong")
    with pytest.raises(ImageUnavailable, match="credentials") as caught:
        ensure(docker_bench, private)
    assert "wrong" not in str(caught.value)
    write_docker_config(tmp_path / "docker", host, registries.PASSWORD)
    ensure(docker_bench, private)

    assert is_here(docker_bench, private)


@pytest.mark.engine
@pytest.mark.filterwarnings("ignore:docker-credential-nosuchhelper:UserWarning")
def test_public_images_are_pulled_despite_an_unreadable_docker_config(
    docker_bench: DockerBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = docker_bench.publish()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"credsStore": "nosuchhelper"}))

    ensure(docker_bench, reference)

    assert is_here(docker_bench, reference)
