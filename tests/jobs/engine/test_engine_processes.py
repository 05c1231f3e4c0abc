"""The contract of every engine: which programs a container runs, and how its processes end."""

import pytest

from jobs.interrupt import Interrupt
from tests.helpers.engines import Bench, shell, tar_of
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.stateless

UNKNOWN_MACHINE = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xff\xff" + bytes(44)  # elf(5): e_machine is 0xffff
# Saves its work on SIGTERM.
SAVES_ITS_WORK = "exec 2> /dev/null; trap 'sleep 0.3; echo saved; exit 7' TERM; echo ready; while :; do sleep 0.05; done"


def with_program(bench: Bench, content: bytes, mode: int = 0o755, **values: str) -> str:
    """Return the name of an ended container that ran a file with this content as its program."""
    name = bench.created(("./program",), **values)
    bench.engine.put(name, "/workspace", [tar_of("program", content, mode=mode)])
    bench.start(name)
    bench.engine.wait(name, Interrupt(), timeout=60)
    return name


def printed(bench: Bench, name: str, stream: str) -> str:
    return b"".join(frame.data for frame in bench.log(name) if frame.stream == stream).decode()


def complaint(bench: Bench, name: str) -> str:
    """Return what was printed to stderr; it must be all that was printed."""
    stream = "stdout" if bench.engine.traits.merges_streams else "stderr"
    assert {frame.stream for frame in bench.log(name)} == {stream}
    return printed(bench, name, stream)


# -- programs that cannot be executed ------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"echo this ran in a shell\n", UNKNOWN_MACHINE, b""], ids=["script", "machine", "empty"])
def test_a_file_that_the_kernel_cannot_execute_is_not_run_by_a_shell(bench: Bench, content: bytes) -> None:
    name = with_program(bench, content)

    assert bench.engine.inspect(name).exit_code == 126
    assert complaint(bench, name) == "exec ./program: exec format error\n"


def test_a_file_without_execute_permission_is_exit_code_126(bench: Bench) -> None:
    name = with_program(bench, b"#!/bin/sh\n", mode=0o644)

    assert bench.engine.inspect(name).exit_code == 126
    assert complaint(bench, name) == "exec ./program: permission denied\n"


def test_a_missing_program_is_named(bench: Bench) -> None:
    name = bench.ended(("nosuchprogram", "argument"))

    assert bench.engine.inspect(name).exit_code == 127
    assert complaint(bench, name) == "exec nosuchprogram: not found\n"


def test_an_image_for_another_architecture_is_reported(bench: Bench) -> None:
    if bench.engine.traits.pulls_at_start:
        pytest.skip("the engine does not say for which architecture an image is")
    name = with_program(bench, UNKNOWN_MACHINE, image=bench.image_for("s390x"))

    seen = bench.engine.inspect(name)
    assert seen.exit_code == 126
    assert seen.wrong_platform.startswith("image is for s390x, node is ")


def test_the_architecture_is_not_reported_if_the_program_ran(bench: Bench) -> None:
    assert bench.run(shell("exit 3"), image=bench.image_for("s390x")).wrong_platform == ""


# -- how they end --------------------------------------------------------------------------------------


def test_a_stop_gives_every_process_time_to_end(bench: Bench) -> None:
    name = bench.started(shell(f'sh -c "{SAVES_ITS_WORK}"; echo after'))
    wait_for(lambda: bench.log(name), what="its line")

    bench.engine.stop(name, 30)

    assert printed(bench, name, "stdout") == "ready\nsaved\n"
    assert bench.engine.inspect(name).exit_code == 143  # of the shell, which SIGTERM ended


def test_a_stop_waits_for_background_processes(bench: Bench) -> None:
    name = bench.started(shell(f'exec 2> /dev/null; sh -c "{SAVES_ITS_WORK}" & trap "exit 5" TERM; while :; do sleep 0.05; done'))
    wait_for(lambda: bench.log(name), what="its line")

    bench.engine.stop(name, 30)

    assert printed(bench, name, "stdout") == "ready\nsaved\n"
    assert bench.engine.inspect(name).exit_code == 5


def test_a_background_process_that_ignores_sigterm_is_killed(bench: Bench) -> None:
    name = bench.started(shell('(trap "" TERM; echo ready; while :; do sleep 0.05; done) & wait'))
    wait_for(lambda: bench.log(name), what="its line")

    bench.engine.stop(name, 0.5)

    seen = bench.engine.inspect(name)
    assert (seen.phase, seen.exit_code, seen.oom_killed) == ("ended", 137, False)


def test_background_processes_end_with_the_program(bench: Bench) -> None:
    name = bench.ended(shell('(trap "" TERM; while :; do sleep 0.05; done) & exit 3'))

    assert bench.engine.inspect(name).exit_code == 3
