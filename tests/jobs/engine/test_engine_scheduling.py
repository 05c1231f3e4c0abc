"""The contract of every engine: how a container comes to run, which takes an engine that schedules as long as it likes."""

import threading

import pytest

from jobs.errors import ContainerConflict, ContainerNotFound, EngineRefused, Interrupted
from jobs.interrupt import Interrupt
from tests.helpers.engines import Bench
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.stateless

TOO_MANY_CPUS = 1000 * 1000  # thousandths


class Waiter(threading.Thread):
    """A thread that waits until a container has started."""

    def __init__(self, bench: Bench, name: str) -> None:
        super().__init__(daemon=True)
        self.interrupt = Interrupt()
        self.reasons: list[str] = []
        self.outcome: Exception | None = None
        self._wait = lambda: bench.engine.wait_until_started(name, self.reasons.append, self.interrupt)
        self.start()

    def run(self) -> None:
        try:
            self._wait()
        except Exception as error:
            self.outcome = error

    def end(self) -> Exception | None:
        """Wait for its end and return what was raised."""
        self.join(20)
        assert not self.is_alive()
        return self.outcome


@pytest.fixture
def scheduling(bench: Bench) -> Bench:
    if not bench.engine.traits.schedules:
        pytest.skip("the engine starts containers at once")
    return bench


@pytest.fixture
def waiting(scheduling: Bench) -> str:
    """A container that was told to start and is too large for every host."""
    name = scheduling.created(cpu_millis=TOO_MANY_CPUS, has_inputs=False, has_outputs=False)
    scheduling.engine.start(name)
    return name


def test_a_container_runs_or_has_ended_when_the_wait_is_over(bench: Bench) -> None:
    name = bench.created(("sleep", "60"), has_inputs=False, has_outputs=False)

    bench.engine.prepare(name, lambda _: None, Interrupt())
    bench.engine.start(name)
    bench.engine.wait_until_started(name, lambda _: None, Interrupt())

    seen = bench.engine.inspect(name)
    assert (seen.phase, seen.waiting) == ("running", "")
    bench.engine.stop(name, 0)
    bench.engine.wait_until_started(name, lambda _: None, Interrupt())


def test_a_container_without_a_place_says_what_it_waits_for(scheduling: Bench, waiting: str) -> None:
    waiter = Waiter(scheduling, waiting)
    wait_for(lambda: waiter.reasons, what="the reason")

    seen = scheduling.engine.inspect(waiting)
    assert (seen.phase, seen.started_at, seen.exit_code) == ("starting", None, None)
    assert "cpu" in seen.waiting
    assert waiter.reasons[-1] == seen.waiting
    waiter.interrupt.wake()
    assert isinstance(waiter.end(), Interrupted)


def test_a_container_that_waits_is_removed_only_by_force(scheduling: Bench, waiting: str) -> None:
    waiter = Waiter(scheduling, waiting)
    wait_for(lambda: waiter.reasons, what="the reason")
    with pytest.raises(ContainerConflict):
        scheduling.engine.remove(waiting)
    assert waiter.is_alive()

    scheduling.engine.remove(waiting, force=True)

    assert isinstance(waiter.end(), ContainerNotFound)
    with pytest.raises(ContainerNotFound):
        scheduling.engine.inspect(waiting)


def test_a_container_that_waits_is_withdrawn(scheduling: Bench, waiting: str) -> None:
    waiter = Waiter(scheduling, waiting)
    wait_for(lambda: waiter.reasons, what="the reason")

    scheduling.engine.withdraw(waiting)

    assert isinstance(waiter.end(), ContainerNotFound)
    with pytest.raises(ContainerNotFound):
        scheduling.engine.inspect(waiting)


def test_a_container_is_withdrawn_only_if_it_has_not_run(bench: Bench) -> None:
    created, running, ended = (
        bench.created(command, has_inputs=False, has_outputs=False) for command in (("true",), ("sleep", "60"), ("true",))
    )
    for name in (running, ended):
        bench.engine.start(name)
    for name in (running, ended):
        bench.engine.wait_until_started(name, lambda _: None, Interrupt())
    bench.engine.wait(ended, Interrupt(), timeout=30)

    for name in (created, "nosuch"):
        bench.engine.withdraw(name)
    for name in (running, ended):
        with pytest.raises(ContainerConflict):
            bench.engine.withdraw(name)

    assert sorted(seen.name for seen in bench.engine.list(bench.labels)) == sorted((running, ended))
    assert bench.engine.inspect(running).phase == "running"


def test_a_container_that_waits_goes_on_waiting_under_its_new_name(scheduling: Bench, waiting: str) -> None:
    waiter = Waiter(scheduling, waiting)
    wait_for(lambda: waiter.reasons, what="the reason")

    scheduling.engine.rename(waiting, f"{waiting}-2")

    assert isinstance(waiter.end(), ContainerNotFound)
    assert scheduling.engine.inspect(f"{waiting}-2").phase == "starting"
    with pytest.raises(ContainerConflict):
        scheduling.engine.start(f"{waiting}-2")


def test_an_engine_that_schedules_says_what_its_largest_host_has(scheduling: Bench) -> None:
    info = scheduling.engine.info()

    assert info.largest_cpus is None or 0 < info.largest_cpus <= info.cpus
    assert info.largest_memory_bytes is None or 0 < info.largest_memory_bytes <= info.memory_bytes


def test_an_engine_that_schedules_has_no_sandboxes(scheduling: Bench) -> None:
    with pytest.raises(EngineRefused):
        scheduling.engine.create_sandbox("sandbox", "network", scheduling.labels)
