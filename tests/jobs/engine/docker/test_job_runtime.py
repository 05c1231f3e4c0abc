"""JOB_RUNTIME: the OCI runtime of job containers."""

import os
import shutil
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.engine.docker import DockerEngine
from jobs.engine.docker.job_runtime import JobRuntime, is_unknown
from jobs.errors import EngineInTrouble, EngineRefused
from tests.helpers.docker_daemons import own_daemon
from tests.helpers.engines import DockerBench, shell, untar
from tests.helpers.waiting import wait_for
from tests.jobs.engine.docker.scripted_daemon import EARLY, ScriptedDaemon, answer

RUNC, CRUN = {"path": "runc"}, {"path": "/usr/bin/crun"}
GVISOR, KATA = {"path": "/usr/bin/runsc", "runtimeArgs": ["--platform=kvm"]}, {"runtimeType": "io.containerd.kata.v2"}


@pytest.mark.parametrize(
    ("name", "runtimes", "default", "refused", "shares_networks"),
    [
        ("", {"runc": RUNC}, "runc", False, True),
        ("", {"runc": RUNC, "safe": GVISOR}, "safe", False, False),
        ("", None, "", False, False),
        ("fast", {"runc": RUNC, "fast": CRUN}, "runc", False, True),
        ("fast", {"runc": RUNC, "fast": GVISOR}, "runc", False, False),
        ("kata", {"runc": RUNC, "kata": KATA}, "runc", False, False),
        ("kata", {"runc": RUNC}, "runc", True, False),
        ("kata", None, "runc", True, False),
    ],
)
@pytest.mark.stateless
def test_a_runtime_is_looked_for_among_the_engines(
    name: str, runtimes: Any, default: str, refused: bool, shares_networks: bool
) -> None:
    runtime = JobRuntime(name)
    runtime.learn({"Runtimes": runtimes, "DefaultRuntime": default})

    assert (runtime.refusal != "", runtime.shares_networks) == (refused, shares_networks)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Unknown runtime specified fast", True),  # 20.10
        ("unknown or invalid runtime name: fast", True),  # since 23
        ("invalid environment variable: unknown runtime =", False),  # a job may write anything into one
    ],
)
@pytest.mark.stateless
def test_an_unknown_runtime_is_recognized(message: str, expected: bool) -> None:
    assert is_unknown(message) is expected


@pytest.mark.stateless
def test_a_runtime_that_disappears_is_the_engines_fault(daemon: ScriptedDaemon) -> None:
    # Given an engine that was started again without the runtime
    daemon.answers["/info"] = answer(
        200, {"ID": "0", "Name": "e", "NCPU": 2, "MemTotal": 1, "SystemTime": EARLY, "Runtimes": {"runc": RUNC}}
    )
    daemon.answers["/containers/create"] = answer(400, {"message": "unknown or invalid runtime name: fast"})
    engine = DockerEngine(daemon.host, runtime="fast")

    # I expect it to be said, and no job to be blamed
    info = engine.info()
    assert info.refusal == "the engine has no runtime fast (JOB_RUNTIME)"
    assert info.refusal in info.warnings
    with pytest.raises(EngineInTrouble):
        engine.create(DockerBench(daemon.host, "").spec())


@pytest.fixture(scope="module")
def runtimes_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An engine with other runtimes than runc, as far as they are installed."""
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        pytest.skip("only root can start a dockerd")
    # The packaged runsc does not recognize the network namespaces of newer kernels, so it gets no network of its own.
    programs = {"crun": [], "runsc": ["--platform=ptrace", "--network=host"]}
    runtimes = {
        name: {"path": path, "runtimeArgs": arguments} for name, arguments in programs.items() if (path := shutil.which(name))
    }
    with own_daemon(tmp_path_factory.mktemp("e"), runtimes=runtimes, firewall=False) as daemon:
        yield daemon.host


@pytest.fixture
def runtime_bench(runtimes_host: str, request: pytest.FixtureRequest) -> Iterator[DockerBench]:
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed")
    bench = DockerBench(runtimes_host, "")
    bench.engine = DockerEngine(runtimes_host, runtime=request.param)
    yield bench
    bench.clean()


@pytest.mark.engine
@pytest.mark.any_engine
@pytest.mark.stateless
@pytest.mark.parametrize(
    ("runtime_bench", "kernel", "may_share"), [("crun", "", True), ("runsc", "4.4.0", False)], indirect=["runtime_bench"]
)
def test_jobs_run_under_another_runtime(runtime_bench: DockerBench, kernel: str, may_share: bool) -> None:
    bench, engine = runtime_bench, runtime_bench.engine
    assert engine.info().refusal == ""

    # Given a job that writes a file, prints, and fails
    name = bench.ended(shell("echo content > file; uname -r; echo error >&2; exit 3"))

    # I expect what any runtime does
    assert engine.inspect(name).exit_code == 3
    printed = {(frame.stream, frame.data) for frame in bench.log(name)}
    assert ("stderr", b"error\n") in printed
    assert any(stream == "stdout" and data.decode().startswith(kernel) for stream, data in printed)
    with engine.get(name, "/workspace/file") as chunks:
        ((_, content),) = untar(chunks).values()
    assert content == b"content\n"

    # And jobs to end when they are asked to
    running = bench.started(shell("trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"))
    wait_for(lambda: bench.log(running), 20, "its line")
    engine.stop(running, 30)
    assert engine.inspect(running).exit_code == 5

    # And sandboxes only if their network stays as it is
    network = f"test-{uuid.uuid4().hex}"
    engine.create_network(network, bench.labels)
    if may_share:
        engine.create_sandbox(f"{network}-sandbox", network, bench.labels)
        assert engine.is_sandbox_clean(f"{network}-sandbox")
    else:
        with pytest.raises(EngineRefused, match="cannot join the network"):
            engine.create_sandbox(f"{network}-sandbox", network, bench.labels)


@pytest.mark.engine
@pytest.mark.any_engine
@pytest.mark.stateless
def test_an_engine_without_the_runtime_is_refused(docker_host: str) -> None:
    assert (
        DockerEngine(docker_host, runtime="nonexistent").info().refusal == "the engine has no runtime nonexistent (JOB_RUNTIME)"
    )
