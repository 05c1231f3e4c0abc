"""Explanations of failed starts, which repeat nothing of the engine's message that may be private or hostile."""

import logging
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.engine import container_init
from jobs.engine.docker import DockerEngine
from jobs.engine.docker.start_errors import cause_of, check_arguments
from jobs.errors import EngineRefused, StartFailed
from tests.helpers import built_images
from tests.helpers.engines import DockerBench, shell
from tests.jobs.engine.docker.scripted_daemon import NEVER, ScriptedDaemon, answer

pytestmark = pytest.mark.stateless

RUNC = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "
CONFIG = {"Entrypoint": ["/opt/x y"], "Cmd": ["arg"], "WorkingDir": "/work", "User": "app"}
HOST = "/srv/engine/volumes/617add9e0a18/_data"
UNKNOWN_CAUSE = "the engine could not start the container"


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (f'{RUNC}exec: "/opt/x y": stat /opt/x y: no such file or directory: unknown', 'command not found: "/opt/x y"'),
        (f'{RUNC}exec: "arg": executable file not found in $PATH: unknown', 'command not found: "arg"'),
        (f'{RUNC}exec: "/opt/x y": permission denied: unknown', "permission denied"),
        (f'{RUNC}exec: "/opt/x y": is a directory: unknown', "is a directory"),
        (f"{RUNC}exec /opt/run.sh: no such file or directory: unknown", "interpreter"),
        ('standard_init_linux.go:228: exec user process caused: exec format error', "exec format error"),
        ('standard_init_linux.go:228: exec user process caused "no such file or directory"', "interpreter"),
        (f"{RUNC}exec /opt/x: argument list too long: unknown", "longer than Linux allows"),
        ("unable to find user app: no matching entries in passwd file", "/etc/passwd"),
        ("linux spec user: unable to find group app: no matching entries in group file", "/etc/group"),
        (f'{RUNC}chdir to cwd ("/work") set in config.json failed: permission denied: unknown', 'enter the workspace: "/work"'),
        (f'{RUNC}error mounting "{HOST}" to rootfs at "/proc": "{HOST}/proc" cannot be mounted because it is not of type proc',
         "volume"),
        (f"cannot mount volume over existing file, file exists {HOST}/merged/bin/busybox", "volume"),
        (f"lstat {HOST}/merged/bin/busybox/x: not a directory", "not a directory in the image"),
        ("Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", "fewer cpus"),
        ("No command specified", "the image has no command"),
        (f'{RUNC}exec: "{HOST}": stat {HOST}: no such file or directory: unknown', UNKNOWN_CAUSE),  # a missing runtime
        (f'fork/exec {HOST}: no such file or directory', UNKNOWN_CAUSE),
        (f"write {HOST}: some error of tomorrow", UNKNOWN_CAUSE),
        ("", UNKNOWN_CAUSE),
    ],
)  # fmt: skip
def test_known_failures_are_explained(message: str, sentence: str) -> None:
    explained = cause_of(message, CONFIG).sentence

    assert sentence in explained
    assert HOST not in explained
    assert "srv" not in explained


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        # Names that an image chooses are not the engine's words.
        ("unable to find user containerd: no matching entries in passwd file", "job"),
        ("linux spec user: unable to find group shutting down: no matching entries in group file", "job"),
        (f"mkdir {HOST}/merged/work/containerd it is: too many levels of symbolic links", "job"),
        (f'{RUNC}error mounting "{HOST}" to rootfs at "/no space left on device": not supported', "unknown"),
        # The engine's own programs are not the job's.
        ('unable to retrieve OCI runtime error: exec: "runc": executable file not found in $PATH: unknown', "unknown"),
        ("fork/exec /usr/bin/runc: exec format error", "unknown"),
        (f"{RUNC}exec {container_init.COMMAND}: exec format error: unknown", "unknown"),
        ('failed to start shim: exec: "containerd-shim-runc-v2": executable file not found in $PATH', "engine"),
        (f"error mounting {HOST}: no space left on device", "engine"),
    ],
)
def test_names_that_a_job_chooses_do_not_change_whose_fault_it_is(message: str, fault: str) -> None:
    config = CONFIG | {"Volumes": {"/no space left on device": {}}}

    assert cause_of(message, config).fault == fault


words = st.sampled_from(
    [
        "/a",
        "/",
        "merged",
        'exec: "',
        '"',
        "\\",
        "exec ",
        ": ",
        "x",
        "unable to find user ",
        "chdir to cwd (",
        "not a directory",
        "\n",
        "é",
    ]
)


@given(
    st.lists(words, min_size=1, max_size=4).map("".join), st.dictionaries(st.sampled_from(["WorkingDir"]), st.text(max_size=9))
)
def test_a_message_of_any_length_is_explained_at_once(piece: str, config: dict[str, Any]) -> None:
    explained = cause_of(piece * 200_000, config).sentence

    assert len(explained) < 300


def test_an_error_of_any_length_is_explained_at_once(tmp_path: Path) -> None:
    # Given a container that could not be started, because of a user name of 200,000 characters
    error = f"unable to find user {'/a' * 100_000}: no matching entries in passwd file"
    state = {"Status": "created", "Running": False, "StartedAt": NEVER, "FinishedAt": NEVER, "ExitCode": 128, "OOMKilled": False}
    config = {"Labels": None, "User": "/a" * 100_000}
    about = {
        "Id": "0",
        "Name": "/job",
        "Created": "2026-01-01T00:00:00Z",
        "State": {**state, "Error": error},
        "Config": config,
        "HostConfig": {"NetworkMode": "default"},
    }
    with closing(ScriptedDaemon(tmp_path / "docker.sock")) as daemon:
        daemon.answers |= {"/json": answer(200, about), "/start": answer(500, {"message": error}), "/networks": answer(200, {})}
        engine = DockerEngine(daemon.host)

        # I expect it to be inspected, and the failed start to be explained, at once
        assert engine.inspect("job").phase == "created"
        with pytest.raises(StartFailed) as failed:
            engine.start("job")

    assert str(failed.value) == "the image's user is not in its /etc/passwd"


@pytest.mark.engine
@pytest.mark.parametrize(("path", "sentence"), [("/proc", "volume"), ("/bin/sh", "volume")])
def test_a_failed_mount_names_no_path_of_the_host(
    docker_bench: DockerBench, caplog: pytest.LogCaptureFixture, path: str, sentence: str
) -> None:
    # Given an image whose volume is at a path that something else needs
    image = built_images.import_busybox(
        docker_bench.host, f"orchestrator-test/volume-{path.strip('/').replace('/', '-')}:1", [f"VOLUME {path}"]
    )
    caplog.set_level(logging.WARNING)

    # When it is run
    with pytest.raises((StartFailed, EngineRefused)) as failed:
        docker_bench.started(image=image)

    # I expect a sentence for the client, and the engine's message in the log
    built_images.remove(docker_bench.host, image)
    assert sentence in str(failed.value)
    assert "/" not in str(failed.value)
    assert "/merged" in caplog.text


# -- arguments that are too long ---------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, {"Entrypoint": None, "Cmd": None, "Env": None}, {"Env": ["A=" + "x" * 131_069]}])
def test_arguments_that_linux_accepts_are_accepted(config: dict[str, Any]) -> None:
    check_arguments(config)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"Env": ["A=" + "x" * 131_070]}, "more than 131071 bytes"),
        ({"Entrypoint": ["é" * 65_536]}, "more than 131071 bytes"),
        ({"Cmd": [""] * 250_000}, "longer than Linux allows"),
        ({"Cmd": ["x" * 100_000] * 10, "Env": ["A=" + "x" * 100_000] * 11}, "longer than Linux allows"),
    ],
)
def test_arguments_that_linux_refuses_fail_the_start(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(StartFailed, match=sentence):
        check_arguments(config)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("command", "environment"),
    [
        (("true", "x" * 131_071), {}),
        (shell(": " + "x" * 131_069), {}),
        (("true",), {"A": "x" * 131_069}),
        (("true", *["x" * 100_000] * 10), {f"A{number}": "x" * 100_000 for number in range(10)}),
    ],
    ids=["argument", "script", "variable", "all together"],
)
def test_the_longest_arguments_reach_the_program(
    docker_bench: DockerBench, command: tuple[str, ...], environment: dict[str, str]
) -> None:
    assert docker_bench.run(command, environment=environment).exit_code == 0


@pytest.mark.engine
def test_too_many_arguments_fail_the_start(docker_bench: DockerBench) -> None:
    with pytest.raises(StartFailed, match="longer than Linux allows"):
        docker_bench.started(("true", *["x" * 100_000] * 21))


@pytest.mark.engine
def test_arguments_are_checked_before_the_first_start(docker_bench: DockerBench) -> None:
    # Given an image with an environment that Linux refuses
    layer = built_images.busybox_file_system()
    image = docker_bench.image_of(layer, Env=["A=" + "x" * 140_000])
    name = docker_bench.created(("true",), image=image)

    # I expect that its user cannot be asked for without the error
    with pytest.raises(StartFailed, match="of the image has more than"):
        docker_bench.engine.resolve_user(name)
