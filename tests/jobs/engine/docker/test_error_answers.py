"""What error answers to creations, starts and file calls mean, and whose fault they are."""

import pytest

from jobs.engine.docker import DockerEngine
from jobs.errors import (
    ContainerConflict,
    ContainerNotFound,
    EngineRefused,
    EngineUnavailable,
    ImageUnavailable,
    JobError,
    NetworkMissing,
    PathNotFound,
    StartFailed,
    StartLost,
    StartRefused,
)
from tests.helpers.engines import FakeBench
from tests.jobs.engine.docker.scripted_daemon import ScriptedDaemon, answer, inspected

pytestmark = pytest.mark.stateless

DISK_FULL = "no space left on device"


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (304, "", ContainerConflict),
        (400, 'OCI runtime create failed: container_linux.go:380: starting container process caused: exec: "x": executable file '
         "not found in $PATH: unknown", StartFailed),
        (500, "unable to find user x: no matching entries in passwd file", StartFailed),
        (500, "id already in use", StartLost),
        (400, 'failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: '
         'namespace {"time" ""} does not exist: unknown', StartRefused),
        (500, 'fork/exec /usr/sbin/runc: no such file or directory: unknown', StartRefused),
        (400, 'OCI runtime create failed: exec: "/sbin/docker-init": stat /sbin/docker-init: no such file or directory',
         StartRefused),
        (400, 'OCI runtime create failed: exec: "/dev/orchestrator/init": permission denied: unknown', StartRefused),
        (500, "open /sys/fs/cgroup/memory/docker: permission denied", StartRefused),
        (500, "no such words so far", StartRefused),
        (400, "OCI runtime create failed: unable to retrieve OCI runtime error (open /run/containerd/x/log.json: no such file or "
         "directory): /usr/bin/runc did not terminate successfully: exit status 1: no output: unknown", StartRefused),
        (400, 'OCI runtime create failed: exec /sbin/docker-init: argument list too long: unknown', StartFailed),
        (400, 'runc create failed: unable to start container process: exec: "/x": permission denied: unknown', StartFailed),
        (400, 'chdir to cwd ("/workspace") set in config.json failed: permission denied: unknown', StartFailed),
        (400, "container init was OOM-killed (memory limit too low?): unknown", StartFailed),
        (500, 'connection error: desc = "transport: error while dialing: dial unix:///run/containerd.sock"', EngineUnavailable),
        (500, "mkdir /var/lib/docker/x: no space left on device", EngineUnavailable),
        (409, "container is marked for removal and cannot be started", ContainerConflict),
    ],
)  # fmt: skip
def test_start_errors_tell_whose_fault_it_is(daemon: ScriptedDaemon, status: int, message: str, expected: type[JobError]) -> None:
    daemon.answers["/json"] = inspected()
    daemon.answers["/start"] = answer(status, {"message": message}) if status != 304 else b"HTTP/1.1 304 X\r\n\r\n"

    with pytest.raises(expected) as caught:
        DockerEngine(daemon.host).start("job")

    assert "container_linux.go" not in str(caught.value)
    assert not str(caught.value).endswith("unknown")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "network orc-1 not found"),
        (500, "failed to set up container networking: network orc-1 not found"),
        (500, "no such sandbox"),
    ],
)
@pytest.mark.parametrize("call", ["/start", "/containers/create"])
def test_a_missing_network_is_recognized_whatever_the_message(
    daemon: ScriptedDaemon, fake_bench: FakeBench, status: int, message: str, call: str
) -> None:
    daemon.answers |= {
        "/networks": answer(404, {"message": "no"}),
        "/json": inspected(),
        call: answer(status, {"message": message}),
    }
    engine = DockerEngine(daemon.host)

    with pytest.raises(NetworkMissing):
        engine.start("job") if call == "/start" else engine.create(fake_bench.spec(network="orc-1"))


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "invalid reference", EngineRefused),
        (404, "No such image: x:1", ImageUnavailable),
        (500, "Cannot mkdir: /bin/sh is not a directory", EngineRefused),
        (500, "write /data/overlay2/x: no space left on device", EngineUnavailable),
        (500, "error creating overlay mount to /x: invalid argument", StartRefused),
        (503, "shutting down", EngineUnavailable),
    ],
)
def test_creation_errors_tell_whose_fault_it_is(
    daemon: ScriptedDaemon, fake_bench: FakeBench, status: int, message: str, expected: type[JobError]
) -> None:
    daemon.answers["/create"] = answer(status, {"message": message})
    daemon.answers["/json"] = inspected(started="2026-01-01T00:00:01Z")

    with pytest.raises(expected) as caught:
        DockerEngine(daemon.host).create(fake_bench.spec())

    if not issubclass(expected, EngineUnavailable):
        assert message not in str(caught.value)


def test_a_name_that_is_taken_again_is_a_conflict(daemon: ScriptedDaemon, fake_bench: FakeBench) -> None:
    # Given a container of that name that never started, and another one as soon as that is removed
    daemon.answers |= {
        "/create": answer(409, {"message": "Conflict. The name is in use"}),
        "/json": inspected(),
        "DELETE": b"HTTP/1.1 204 X\r\nConnection: close\r\n\r\n",
    }

    with pytest.raises(ContainerConflict):
        DockerEngine(daemon.host).create(fake_bench.spec())


def test_a_network_without_addresses_is_the_engines_fault(daemon: ScriptedDaemon) -> None:
    message = "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    daemon.answers["/networks"] = answer(404, {"message": message})

    with pytest.raises(EngineUnavailable, match="address pool"):
        DockerEngine(daemon.host).create_network("network", {})


@pytest.mark.parametrize("status", ["removing", "dead"])
def test_a_container_being_removed_is_not_found(daemon: ScriptedDaemon, status: str) -> None:
    # `docker rm --force` kills the process first: for a moment the container has ended with 137.
    daemon.answers["/json"] = inspected(
        started="2026-01-01T00:00:01Z", finished="2026-01-01T00:00:03Z", exit_code=137, status=status
    )

    with pytest.raises(ContainerNotFound):
        DockerEngine(daemon.host).inspect("job")


def get_file(engine: DockerEngine) -> None:
    with engine.get("job", "/f"):
        pass


@pytest.mark.parametrize("reason", ["not a directory", "too many levels of symbolic links"])
def test_a_path_with_the_words_of_engine_trouble_is_only_a_path(daemon: ScriptedDaemon, reason: str) -> None:
    daemon.answers["/archive"] = answer(500, {"message": f"lstat /srv/merged/{DISK_FULL}/f: {reason}"})

    with pytest.raises(PathNotFound):
        get_file(DockerEngine(daemon.host))


def test_a_full_engine_disk_says_nothing_about_a_path(daemon: ScriptedDaemon) -> None:
    daemon.answers["/archive"] = answer(500, {"message": f"write /srv/x: {DISK_FULL}"})

    with pytest.raises(EngineUnavailable):
        get_file(DockerEngine(daemon.host))
