"""The request that creates a container: every one has the settings that confine a job."""

from typing import Any

import pytest

from jobs.engine import container_init
from jobs.engine.docker.container_json import creation_body
from jobs.engine.protocol import RunSpec

pytestmark = pytest.mark.stateless

HOLDER = "orchestrator-init-0"


def a_run(**values: Any) -> RunSpec:
    defaults: dict[str, Any] = {
        "name": "job",
        "image": "alpine:latest",
        "command": ("echo", "hello"),
        "environment": {"NAME": "a=b"},
        "workspace": "/workspace",
        "cpu_millis": 250,
        "memory_mib": 64,
        "network": None,
        "labels": {"label": "value"},
        "stop_grace_seconds": 7,
        "log_limit_bytes": 1024**3,
    }
    return RunSpec(**(defaults | values))


@pytest.mark.parametrize("holder", [HOLDER, ""])
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("CapDrop", ["ALL"]),
        ("CapAdd", ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"]),
        ("SecurityOpt", ["no-new-privileges"]),
        ("PidsLimit", 1024),
        ("OomScoreAdj", 500),
        ("IpcMode", "private"),
        ("NanoCpus", 250_000_000),
        ("Memory", 64 * 1024**2),
        ("MemorySwap", 64 * 1024**2),  # memory and swap together: no swap
        ("NetworkMode", "none"),
        ("RestartPolicy", {"Name": "no"}),
        ("AutoRemove", False),
    ],
)
def test_a_container_is_confined(holder: str, setting: str, value: object) -> None:
    assert creation_body(a_run(), holder)["HostConfig"][setting] == value


HOST_SETTINGS = ("Privileged", "Binds", "Mounts", "Devices", "DeviceRequests", "PidMode", "UTSMode", "UsernsMode", "CgroupnsMode")


@pytest.mark.parametrize("setting", HOST_SETTINGS)
def test_a_container_gets_nothing_of_the_host(setting: str) -> None:
    assert setting not in creation_body(a_run(), HOLDER)["HostConfig"]


def test_the_log_is_kept_in_two_files_of_half_the_limit() -> None:
    log = creation_body(a_run(), HOLDER)["HostConfig"]["LogConfig"]["Config"]

    assert log == {"max-size": str(512 * 1024**2), "max-file": "2", "compress": "false"}


def test_the_images_health_check_and_stop_signal_are_replaced() -> None:
    body = creation_body(a_run(), HOLDER)

    assert (body["Healthcheck"], body["StopSignal"], body["StopTimeout"]) == ({"Test": ["NONE"]}, "SIGTERM", 7)


@pytest.mark.parametrize("command", [("echo", "hello"), ("--", "-x"), ("",)])
def test_a_command_runs_under_our_read_only_init(command: tuple[str, ...]) -> None:
    body = creation_body(a_run(command=command), HOLDER)

    assert (body["Entrypoint"], body["Cmd"]) == ([container_init.COMMAND, *command], [])
    assert (body["HostConfig"]["Init"], body["HostConfig"]["VolumesFrom"]) == (False, [f"{HOLDER}:ro"])


@pytest.mark.parametrize(("command", "replaced"), [(("echo", "hello"), {"Entrypoint": ["echo", "hello"], "Cmd": []}), (None, {})])
def test_a_command_runs_under_dockers_init_if_we_have_none(command: tuple[str, ...] | None, replaced: dict[str, Any]) -> None:
    body = creation_body(a_run(command=command))

    assert {name: body[name] for name in ("Entrypoint", "Cmd") if name in body} == replaced
    assert (body["HostConfig"]["Init"], body["HostConfig"]["VolumesFrom"]) == (True, [])
