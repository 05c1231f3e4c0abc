"""The resource limits of processes in containers: none is higher than the engine can set."""

import os
import resource

import pytest

from jobs.engine.docker.local_daemon import Process
from jobs.engine.docker.resource_limits import ResourceLimits

pytestmark = pytest.mark.stateless

NOT_RUNNING = Process(2**22 + 1, "0")


def limits_of(process: Process | None) -> dict[str, int]:
    limits = ResourceLimits()
    limits.learn(process)
    ulimits = limits.ulimits()
    assert all(limit["Soft"] == limit["Hard"] for limit in ulimits)
    return {limit["Name"]: limit["Hard"] for limit in ulimits}


@pytest.mark.parametrize("process", [None, NOT_RUNNING])
def test_an_engine_elsewhere_sets_all_limits(process: Process | None) -> None:
    expected = {"core": 0, "msgqueue": 409_600, "nofile": 65_536, "sigpending": 4096}

    assert limits_of(process) == expected


def test_an_engine_with_lower_limits_passes_these_on() -> None:
    # Given an engine whose process has the limits of this one
    limits = limits_of(Process(os.getpid(), "0"))

    # I expect no higher one than it has itself
    for name, number in (("nofile", resource.RLIMIT_NOFILE), ("msgqueue", resource.RLIMIT_MSGQUEUE)):
        hard = resource.getrlimit(number)[1]
        assert limits[name] == min(limits_of(None)[name], hard if hard >= 0 else 2**63)


RUNC = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "
UNABLE = f"{RUNC}error during container init: error setting rlimits for ready process: error setting rlimit type 7: EPERM"
BY_NEWER = f"failed to create task for container: {UNABLE}"  # Docker 26
BY_CRUN = "OCI runtime create failed: setrlimit `RLIMIT_NOFILE`: Operation not permitted: unknown"


@pytest.mark.parametrize("message", [UNABLE, BY_NEWER, BY_CRUN])
def test_an_engine_that_cannot_set_limits_is_asked_for_fewer(message: str) -> None:
    limits = ResourceLimits()
    asked = limits.ulimits()

    # When two containers are not started for it, I expect another try of both
    assert limits.refuses(message, asked)
    assert limits.refuses(message, asked)

    # And only core dumps to be limited from then on, without a third try
    assert limits.ulimits() == [{"Name": "core", "Soft": 0, "Hard": 0}]
    assert not limits.refuses(message, limits.ulimits())
    assert limits.warnings() == ["the engine cannot limit the open files, pending signals and message queues of jobs"]


@pytest.mark.parametrize(
    "message",
    [
        f'{RUNC}exec: "error setting rlimit": executable file not found in $PATH',
        'OCI runtime create failed: chdir to cwd ("/setrlimit ") set in config.json failed',
        "error setting rlimit",
        "invalid mount: /x OCI runtime create failed: setrlimit ",
    ],
)
def test_what_a_job_writes_into_a_message_does_not_lift_limits(message: str) -> None:
    limits = ResourceLimits()

    assert not limits.refuses(message, limits.ulimits())
    assert len(limits.ulimits()) == 4
    assert limits.warnings() == []
