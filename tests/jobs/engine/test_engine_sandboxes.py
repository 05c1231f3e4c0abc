"""The contract of every engine: network sandboxes."""

import uuid

import pytest

from jobs.errors import ContainerNotFound, SandboxRefused
from jobs.interrupt import Interrupt
from tests.helpers.engines import Bench, shell

pytestmark = pytest.mark.stateless


@pytest.fixture
def sandbox(bench: Bench) -> str:
    if bench.engine.traits.schedules:
        pytest.skip("an engine that schedules has no sandboxes")
    network = f"test-{uuid.uuid4().hex}"
    bench.engine.create_network(network, bench.labels)
    name = f"sandbox-{uuid.uuid4().hex}"
    bench.engine.create_sandbox(name, network, bench.labels)
    return name


def test_containers_run_in_a_sandbox_one_after_the_other(bench: Bench, sandbox: str) -> None:
    for number in range(2):
        assert bench.output(("echo", str(number)), sandbox=sandbox) == f"{number}\n"
        assert bench.engine.is_sandbox_clean(sandbox)


def test_a_sandbox_is_found_like_a_container(bench: Bench, sandbox: str) -> None:
    (seen,) = bench.engine.list(bench.labels)

    assert (seen.name, seen.phase) == (sandbox, "running")


def test_a_sandbox_outlives_the_containers_that_joined_it(bench: Bench, sandbox: str) -> None:
    name = bench.started(shell("sleep 60"), sandbox=sandbox)

    bench.engine.remove(name, force=True)

    assert bench.engine.is_sandbox_clean(sandbox)


def test_a_container_stays_in_a_sandbox_that_is_renamed(bench: Bench, sandbox: str) -> None:
    name = bench.created(("echo", "hello"), sandbox=sandbox)

    bench.engine.rename(sandbox, f"{sandbox}-2")

    bench.start(name)
    bench.engine.wait(name, Interrupt(), timeout=60)
    assert bench.log(name)[0].data == b"hello\n"
    with pytest.raises(ContainerNotFound):
        bench.engine.is_sandbox_clean(sandbox)


def test_a_container_cannot_join_a_sandbox_by_its_old_name(bench: Bench, sandbox: str) -> None:
    bench.engine.rename(sandbox, f"{sandbox}-2")

    name = bench.created(sandbox=sandbox)
    with pytest.raises(SandboxRefused):
        bench.engine.start(name)

    assert bench.engine.inspect(name).phase == "created"


@pytest.mark.parametrize("created_before", [True, False])
@pytest.mark.parametrize("removed", [True, False])
def test_a_sandbox_that_has_ended_is_refused(bench: Bench, sandbox: str, *, created_before: bool, removed: bool) -> None:
    name = bench.created(sandbox=sandbox) if created_before else ""
    if removed:
        bench.engine.remove(sandbox, force=True)
    else:
        bench.engine.stop(sandbox, 0)

    name = name or bench.created(sandbox=sandbox)
    with pytest.raises(SandboxRefused):
        bench.engine.start(name)

    assert bench.engine.inspect(name).phase == "created"


def test_a_program_that_does_not_exist_is_not_the_sandboxs_fault(bench: Bench, sandbox: str) -> None:
    assert bench.run(("/none",), sandbox=sandbox).exit_code == 127
    assert bench.engine.is_sandbox_clean(sandbox)
