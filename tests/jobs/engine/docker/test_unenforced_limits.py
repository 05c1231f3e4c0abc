"""The engine's description of itself: limits that it does not enforce, and whether it is supported at all."""

import pytest

from jobs.engine.docker import DockerEngine
from jobs.errors import EngineRefused, EngineUnavailable
from jobs.interrupt import Interrupt
from tests.helpers.engines import FakeBench
from tests.jobs.engine.docker.scripted_daemon import LATE, ScriptedDaemon, answer

pytestmark = pytest.mark.stateless

ALL_ENFORCED = {"MemoryLimit": True, "SwapLimit": True, "CpuCfsQuota": True, "PidsLimit": True, "BridgeNfIptables": True}


def describe(daemon: ScriptedDaemon, **values: object) -> None:
    about = {"ID": "id", "Name": "name", "NCPU": 2, "MemTotal": 2**30, "SystemTime": LATE}
    daemon.answers["/info"] = answer(200, about | ALL_ENFORCED | values)


@pytest.mark.parametrize(
    ("api_version", "reported"),
    [("1.41", True), ("1.47", True), ("1.48", False), ("1.49", False), ("1.55", False)],
)
def test_the_bridge_flag_is_ignored_from_api_1_48_on(daemon: ScriptedDaemon, api_version: str, reported: bool) -> None:
    daemon.answers["/version"] = answer(200, {"ApiVersion": api_version})
    describe(daemon, BridgeNfIptables=False)

    warnings = DockerEngine(daemon.host).info().warnings

    assert any("reach one another" in warning for warning in warnings) is reported


@pytest.mark.parametrize(
    ("warning", "expected"),
    [
        ("WARNING: No swap limit support", "swap"),
        ("WARNING: No memory limit support", "limit memory"),
        ("WARNING: IPv4 forwarding is disabled", "IPv4"),
        ("WARNING: something new on tcp://192.0.2.1", "it is in the worker's log"),
        ("WARNING: No blkio throttle.read_bps_device support", ""),
        ("WARNING: bridge-nf-call-iptables is disabled", ""),
        ("WARNING: API is accessible on http://192.0.2.1:2375 without encryption.", ""),
    ],
)
def test_warnings_of_an_engine_are_explained(
    daemon: ScriptedDaemon, caplog: pytest.LogCaptureFixture, warning: str, expected: str
) -> None:
    describe(daemon, Warnings=[warning])
    engine = DockerEngine(daemon.host)

    reported = [engine.info().warnings for _ in range(2)][-1]

    assert len(reported) == bool(expected)
    assert "192.0.2.1" not in str(reported)
    assert all(expected in sentence for sentence in reported)
    assert caplog.text.count(warning) == bool(expected)


@pytest.mark.parametrize(
    ("warning", "expected"),
    [
        (
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
            "swap",
        ),
        ("Your kernel does not support memory limit capabilities or the cgroup is not mounted.", "limit memory"),
        ("Your kernel does not support PIDs limit capabilities or the cgroup is not mounted.", "limit processes"),
        ("The requested image's platform (linux/arm64) does not match the detected host platform (linux/amd64)", ""),
        ("option isolate is ignored", "it is in the worker's log"),
    ],
)
def test_warnings_at_the_creation_of_a_container_are_the_engines(
    daemon: ScriptedDaemon, fake_bench: FakeBench, warning: str, expected: str
) -> None:
    daemon.answers["/create"] = answer(201, {"Id": "0", "Warnings": [warning]})
    describe(daemon)
    engine = DockerEngine(daemon.host)
    engine.bound(Interrupt()).create(fake_bench.spec())

    reported = engine.info().warnings

    assert len(reported) == bool(expected)
    assert all(expected in sentence for sentence in reported)


def test_podman_is_refused(daemon: ScriptedDaemon) -> None:
    components = [{"Name": "Podman Engine", "Version": "4.3.1"}, {"Name": "Conmon"}]
    daemon.answers["/version"] = answer(200, {"ApiVersion": "1.41", "Components": components})

    with pytest.raises(EngineRefused, match="Podman, which is not supported"):
        DockerEngine(daemon.host).info()


@pytest.mark.parametrize("about", [{}, {"ApiVersion": "x"}, [], None])
def test_an_engine_without_a_version_is_unavailable(daemon: ScriptedDaemon, about: object) -> None:
    daemon.answers["/version"] = answer(200, about)

    with pytest.raises(EngineUnavailable):
        DockerEngine(daemon.host).info()
