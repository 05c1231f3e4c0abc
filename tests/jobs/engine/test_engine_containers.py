"""The contract of every engine (`jobs.engine.protocol`): containers from their creation to their removal."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs.engine.protocol import User
from jobs.errors import (
    ContainerConflict,
    ContainerNotFound,
    EngineRefused,
    ImageUnavailable,
    JobError,
    StartFailed,
)
from jobs.interrupt import Interrupt
from tests.helpers.engines import Bench, shell
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.stateless

# Docker misses an out-of-memory kill within about 40 ms of the start.
EATS_MEMORY = shell('sleep 0.5; x=aaaaaaaaaaaaaaaa; while true; do x="$x$x"; done')


def test_an_engine_describes_itself(bench: Bench) -> None:
    info = bench.engine.info()

    assert info.id
    assert info.name
    assert info.cpus >= 1
    assert info.memory_bytes > 64 * 1024**2
    assert abs(info.clock - datetime.now(UTC)) < timedelta(minutes=5)


# -- from created to ended -----------------------------------------------------------------------------


def test_a_created_container_does_not_run(bench: Bench) -> None:
    name = bench.created()

    seen = bench.engine.inspect(name)

    assert (seen.name, seen.phase, seen.started_at, seen.exit_code) == (name, "created", None, None)


def test_a_running_container_has_a_start_time(bench: Bench) -> None:
    before = bench.engine.info().clock
    name = bench.started(shell("sleep 60"))

    seen = bench.engine.inspect(name)

    assert seen.phase == "running"
    assert seen.started_at is not None
    # Since 25, Docker answers questions for its time that come together with one time, which may be before the start.
    margin = timedelta(seconds=1)
    assert before - margin <= seen.started_at <= bench.engine.info().clock + margin
    assert (seen.finished_at, seen.exit_code) == (None, None)


@pytest.mark.parametrize(
    ("script", "exit_code"),
    [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -KILL $$", 137), ("kill -TERM $$", 143), ("nosuchprogram", 127)],
)
def test_an_ended_container_has_an_exit_code(bench: Bench, script: str, exit_code: int) -> None:
    seen = bench.run(shell(script))

    assert (seen.phase, seen.exit_code, seen.oom_killed, seen.lost) == ("ended", exit_code, False, False)
    assert seen.started_at is not None
    assert seen.finished_at is not None
    assert seen.started_at <= seen.finished_at


def test_a_missing_program_is_exit_code_127(bench: Bench) -> None:
    assert bench.run(("nosuchprogram",)).exit_code == 127


def test_running_out_of_memory_is_137_and_oom_killed(bench: Bench) -> None:
    seen = bench.run(EATS_MEMORY, memory_mib=16)

    assert (seen.exit_code, seen.oom_killed) == (137, True)


def test_an_argument_vector_reaches_the_program_unchanged(bench: Bench) -> None:
    arguments = ("a b", "", "$HOME", "*", "é\n", '"')

    assert bench.output(("printf", "<%s>", *arguments)) == "".join(f"<{argument}>" for argument in arguments)


def test_a_command_replaces_the_images_entrypoint_and_command(bench: Bench) -> None:
    image = bench.image_with(command=("echo", "the image's own"))

    assert bench.output(("echo", "ours"), image=image) == "ours\n"
    assert bench.output(None, image=image) == "the image's own\n"


def check_refused(bench: Bench, expected: type[JobError], words: str, command: Any = ("true",), **values: Any) -> None:
    """Check that a container is refused because of its image: when it is created, if the engine sees the image then.

    Otherwise the start fails.
    """
    if not bench.engine.traits.pulls_at_start:
        with pytest.raises(expected, match=words):
            bench.created(command, **values)
        return
    name = bench.created(command, **values)
    with pytest.raises(StartFailed if expected is EngineRefused else expected, match=words):
        bench.start(name)
    assert not bench.engine.inspect(name).has_run


def test_a_run_without_any_command_is_refused(bench: Bench) -> None:
    image = bench.image_with(command=None)

    check_refused(bench, EngineRefused, "the image has no command", None, image=image)


def test_environment_and_working_directory_are_set(bench: Bench) -> None:
    environment = {"NAME": "a=b c\n", "EMPTY": ""}
    script = shell('printf "%s|%s|" "$NAME" "${EMPTY-unset}"; basename "$PWD"; echo "$PATH"')

    printed = bench.output(script, environment=environment, workspace="/some/where")

    assert printed.startswith("a=b c\n||where\n")
    assert "/bin" in printed.splitlines()[-1]


def test_more_cpu_than_the_engine_has_is_refused(bench: Bench) -> None:
    if bench.engine.traits.schedules:
        pytest.skip("an engine that schedules waits for a larger host")
    with pytest.raises(EngineRefused, match="fewer cpus"):
        bench.created(cpu_millis=1000 * 1000)


def test_a_workspace_that_is_a_file_is_refused(bench: Bench) -> None:
    check_refused(bench, EngineRefused, "not a directory in the image", workspace="/etc/passwd")


def test_an_unknown_image_is_unavailable(bench: Bench) -> None:
    check_refused(bench, ImageUnavailable, "is not on the engine", image="orchestrator-test/nosuch:1", pull_policy="never")


def test_an_unknown_user_fails_the_start(bench: Bench) -> None:
    name = bench.created(image=bench.image_with(user="nosuchuser"))

    with pytest.raises(StartFailed, match="user is not in its /etc/passwd"):
        bench.start(name)

    assert bench.engine.inspect(name).phase == ("starting" if bench.engine.traits.pulls_at_start else "created")


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", User(0, 0)),
        ("nobody", User(65534, 65534)),
        ("65534", User(65534, 65534)),
        ("1234", User(1234, 0)),
        ("1234:99", User(1234, 99)),
        ("root:nobody", User(0, 65534)),
    ],
)
def test_a_user_is_resolved_in_the_container(bench: Bench, user: str, expected: User) -> None:
    if ":" in user and bench.engine.traits.ignores_image_groups:
        expected = User(expected.uid, 0)
    name = bench.created(image=bench.image_with(user=user))

    assert bench.engine.resolve_user(name) == expected


# -- names and starts ------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["inspect", "start", "stop", "wait", "logs", "rename", "resolve_user", "stat", "put", "get"])
def test_an_unknown_name_is_not_found(bench: Bench, call: str) -> None:
    engine, name = bench.engine, f"test-{uuid.uuid4().hex}"
    calls = {
        "inspect": lambda: engine.inspect(name),
        "start": lambda: engine.start(name),
        "stop": lambda: engine.stop(name, 1),
        "wait": lambda: engine.wait(name, Interrupt()),
        "logs": lambda: bench.log(name),
        "rename": lambda: engine.rename(name, f"{name}-2"),
        "resolve_user": lambda: engine.resolve_user(name),
        "stat": lambda: engine.stat(name, "/"),
        "put": lambda: engine.put(name, "/", [b""]),
        "get": lambda: engine.get(name, "/etc").__enter__(),
    }

    with pytest.raises(ContainerNotFound):
        calls[call]()


def test_a_container_that_never_started_is_replaced(bench: Bench) -> None:
    spec = bench.spec(("echo", "first"))
    bench.engine.create(spec)

    name = bench.created(("echo", "second"), name=spec.name)
    bench.start(name)
    bench.engine.wait(name, Interrupt())

    assert [frame.data for frame in bench.log(name)] == [b"second\n"]


@pytest.mark.parametrize("script", ["sleep 60", "true"])
def test_a_started_container_is_not_replaced(bench: Bench, script: str) -> None:
    name = bench.started(shell(script))
    if script == "true":
        bench.engine.wait(name, Interrupt())

    with pytest.raises(ContainerConflict):
        bench.created(name=name)

    assert bench.engine.inspect(name).phase != "created"


def test_a_running_container_is_not_started_again(bench: Bench) -> None:
    name = bench.started(shell("sleep 60"))

    with pytest.raises(ContainerConflict):
        bench.engine.start(name)


def test_an_ended_container_is_never_run_again(bench: Bench) -> None:
    name = bench.ended(("echo", "once"))

    with pytest.raises(ContainerConflict):
        bench.engine.start(name)

    assert [frame.data for frame in bench.log(name)] == [b"once\n"]


def test_simultaneous_starts_run_one_process(bench: Bench) -> None:
    # Given
    name = bench.created(shell("echo once; sleep 60"))

    def start(_: int) -> bool:
        try:
            bench.engine.start(name)
        except ContainerConflict:
            return False
        return True

    # When it is started five times at once (several calls may succeed)
    with ThreadPoolExecutor(5) as pool:
        assert any(pool.map(start, range(5)))
    bench.engine.wait_until_started(name, lambda _: None, Interrupt())
    wait_for(lambda: bench.log(name), what="its line")
    bench.engine.stop(name, 0)

    # I expect it to have run once
    assert [frame.data for frame in bench.log(name)] == [b"once\n"]


def test_a_renamed_container_is_found_only_by_its_new_name(bench: Bench) -> None:
    name = bench.created()

    bench.engine.rename(name, f"{name}-2")

    with pytest.raises(ContainerNotFound):
        bench.engine.start(name)
    bench.engine.start(f"{name}-2")
    assert bench.engine.inspect(f"{name}-2").name == f"{name}-2"


def test_a_container_cannot_be_renamed_to_a_taken_name(bench: Bench) -> None:
    first, second = bench.created(), bench.created()

    with pytest.raises(ContainerConflict):
        bench.engine.rename(first, second)


def test_a_running_container_is_renamed_while_its_log_is_read(bench: Bench) -> None:
    name = bench.started(shell("echo one; while [ ! -e go ]; do sleep 0.05; done; echo two"))
    with bench.engine.logs(name, skip=0, follow=True, interrupt=Interrupt()) as frames:
        first = next(frames)
        bench.engine.rename(name, f"{name}-2")
        bench.engine.stop(f"{name}-2", 1)
        rest = [frame for frame in frames if frame]

    assert first is not None
    assert (list(first.data), rest) == ([b"one\n"], [])


# -- removing ------------------------------------------------------------------------------------------


def test_a_container_can_be_removed_twice(bench: Bench) -> None:
    name = bench.created()

    bench.engine.remove(name)
    bench.engine.remove(name)

    with pytest.raises(ContainerNotFound):
        bench.engine.inspect(name)


def test_a_running_container_is_removed_only_by_force(bench: Bench) -> None:
    name = bench.started(shell("sleep 60"))

    with pytest.raises(ContainerConflict):
        bench.engine.remove(name)
    assert bench.engine.inspect(name).phase == "running"

    bench.engine.remove(name, force=True)
    with pytest.raises(ContainerNotFound):
        bench.engine.inspect(name)


def test_simultaneous_removals_all_succeed(bench: Bench) -> None:
    name = bench.started(shell("sleep 60"))

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda _: bench.engine.remove(name, force=True), range(5)))

    with pytest.raises(ContainerNotFound):
        bench.engine.inspect(name)


def test_a_simultaneous_start_and_removal_leave_it_running_or_gone(bench: Bench) -> None:
    name = bench.created(shell("sleep 60"))
    outcomes: list[Exception | None] = []

    def attempt(call: str) -> None:
        try:
            getattr(bench.engine, call)(name)
        except (ContainerConflict, ContainerNotFound) as error:
            outcomes.append(error)
        else:
            outcomes.append(None)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(attempt, ["start", "remove"]))

    assert outcomes.count(None) >= 1
    try:
        assert bench.engine.inspect(name).phase in ("running", *(["starting"] if bench.engine.traits.schedules else []))
    except ContainerNotFound:
        assert not bench.engine.list(bench.labels)


def test_containers_are_listed_by_all_given_labels(bench: Bench) -> None:
    other = {"other": uuid.uuid4().hex}
    created, running = bench.created(labels={**bench.labels, **other}), bench.started(shell("sleep 60"))
    ended = bench.ended()

    phases = {created: "created", running: "running", ended: "ended"}
    # Docker 26 may list a process as running for a moment after `wait` has returned.
    wait_for(lambda: {seen.name: seen.phase for seen in bench.engine.list(bench.labels)} == phases, what="the phases")

    listed = {seen.name: seen for seen in bench.engine.list(bench.labels)}
    assert other.items() <= listed[created].labels.items()
    assert [seen.name for seen in bench.engine.list({**bench.labels, **other})] == [created]
    assert bench.engine.list(dict.fromkeys(other, "nobody")) == []
