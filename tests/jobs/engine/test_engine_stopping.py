"""The contract of every engine: waiting for processes and stopping them."""

import threading

import pytest

from jobs.errors import Interrupted
from jobs.interrupt import Interrupt
from tests.helpers.engines import Bench, shell
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.stateless

IGNORES_SIGTERM = shell('trap "" TERM; echo ready; while true; do sleep 0.1; done')


def test_a_wait_ends_with_the_process(bench: Bench) -> None:
    name = bench.started(shell("sleep 0.3; exit 4"))

    bench.engine.wait(name, Interrupt())

    assert bench.engine.inspect(name).exit_code == 4


def test_a_wait_for_a_container_that_does_not_run_ends_at_once(bench: Bench) -> None:
    bench.engine.wait(bench.ended(), Interrupt())
    bench.engine.wait(bench.created(), Interrupt())


def test_a_wait_ends_after_its_timeout(bench: Bench) -> None:
    name = bench.started(shell("sleep 60"))

    bench.engine.wait(name, Interrupt(), timeout=0.1)

    assert bench.engine.inspect(name).phase == "running"


@pytest.mark.parametrize("early", [True, False])
def test_an_interrupt_ends_a_wait(bench: Bench, early: bool) -> None:
    name = bench.started(shell("sleep 60"))
    interrupt = Interrupt()
    waker = threading.Timer(0 if early else 0.3, interrupt.wake)
    waker.start()
    if early:
        waker.join()

    with pytest.raises(Interrupted):
        bench.engine.wait(name, interrupt)

    waker.join()
    assert bench.engine.inspect(name).phase == "running"


def test_a_plain_process_stops_at_once(bench: Bench) -> None:
    name = bench.started(shell("echo ready; exec sleep 1000"))
    wait_for(lambda: bench.log(name))  # until its init takes signals: the kernel drops those that PID 1 does not

    bench.engine.stop(name, 1000)

    seen = bench.engine.inspect(name)
    assert (seen.phase, seen.exit_code) == ("ended", 143)


def test_a_stop_lets_the_process_finish_its_work(bench: Bench) -> None:
    name = bench.started(shell("exec 2> /dev/null; trap 'echo bye; exit 5' TERM; echo ready; while true; do sleep 0.05; done"))
    wait_for(lambda: bench.log(name))

    bench.engine.stop(name, 30)

    assert bench.engine.inspect(name).exit_code == 5
    assert [frame.data for frame in bench.log(name) if frame.stream == "stdout"] == [b"ready\n", b"bye\n"]


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(bench: Bench) -> None:
    name = bench.started(IGNORES_SIGTERM)
    wait_for(lambda: bench.log(name))

    bench.engine.stop(name, 0.5)

    seen = bench.engine.inspect(name)
    assert (seen.phase, seen.exit_code, seen.oom_killed) == ("ended", 137, False)


def test_a_stop_of_a_container_that_does_not_run_does_nothing(bench: Bench) -> None:
    created, ended = bench.created(), bench.ended(shell("exit 3"))

    bench.engine.stop(created, 1)
    bench.engine.stop(ended, 1)

    assert bench.engine.inspect(created).phase == "created"
    assert bench.engine.inspect(ended).exit_code == 3
