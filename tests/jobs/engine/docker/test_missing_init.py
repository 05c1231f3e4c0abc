"""Installing the init on engines that do not have it, and cannot or will not take it."""

import pytest

from jobs.engine.docker import DockerEngine, init
from jobs.engine.docker.transport import EngineClient
from jobs.engine.protocol import RunSpec
from jobs.errors import EngineInTrouble, EngineRefused, EngineUnavailable
from orchestrator_site.base.intervals import EngineIntervals
from tests.helpers.engines import FakeBench
from tests.jobs.engine.docker.scripted_daemon import ScriptedDaemon, answer

pytestmark = pytest.mark.stateless

DISK_FULL = "no space left on device"


@pytest.fixture
def without_init(daemon: ScriptedDaemon) -> ScriptedDaemon:
    """An engine without a holder of our init, so that creating the job's container fails."""
    daemon.answers["/version"] = answer(200, {"ApiVersion": "1.41", "Arch": "amd64"})
    holder = init.Init(EngineClient(daemon.host, EngineIntervals())).holder()
    daemon.answers |= {
        "/images/load": answer(200, {"stream": "Loaded image"}),
        "create?name=orchestrator-init": answer(404, {"message": "No such image: orchestrator-init"}),
        "create?name=job": answer(400, {"message": f"No such container: {holder}"}),
        "orchestrator-init": answer(404, {"message": "No such container"}),
    }
    return daemon


@pytest.fixture
def spec(fake_bench: FakeBench) -> RunSpec:
    return fake_bench.spec(name="job")


@pytest.mark.parametrize(
    "reply", [answer(200, {"errorDetail": {"message": DISK_FULL}, "error": DISK_FULL}), answer(500, {"message": DISK_FULL})]
)
def test_the_reason_why_the_init_cannot_be_loaded_is_reported(without_init: ScriptedDaemon, spec: RunSpec, reply: bytes) -> None:
    without_init.answers["/images/load"] = reply

    with pytest.raises(EngineInTrouble, match=f"cannot be loaded: {DISK_FULL}"):
        DockerEngine(without_init.host).create(spec)


def test_an_engine_that_refuses_the_init_is_in_trouble(without_init: ScriptedDaemon, spec: RunSpec) -> None:
    with pytest.raises(EngineInTrouble, match="cannot be installed on the engine: No such image"):
        DockerEngine(without_init.host).create(spec)


def test_a_job_waits_while_another_worker_installs_the_init(without_init: ScriptedDaemon, spec: RunSpec) -> None:
    without_init.answers["create?name=orchestrator-init"] = answer(409, {"message": "the name is in use by another container"})

    with pytest.raises(EngineUnavailable, match="another worker"):
        DockerEngine(without_init.host).create(spec)


def test_the_init_that_another_worker_has_just_installed_is_used(without_init: ScriptedDaemon, spec: RunSpec) -> None:
    # Given a holder whose name is taken, and which exists a moment later
    without_init.answers["create?name=orchestrator-init"] = answer(409, {"message": "the name is in use by another container"})
    checks = iter([answer(404, {"message": "No such container"}), answer(200, {"Id": "0"})])
    without_init.answers = {"/json": lambda: next(checks), **without_init.answers}
    creations = iter([without_init.answers["create?name=job"], answer(201, {"Id": "1"})])
    without_init.answers["create?name=job"] = lambda: next(creations)

    # I expect the job's container to be created
    DockerEngine(without_init.host).create(spec)
    assert without_init.count("create?name=job") == 2


def test_a_job_waits_if_the_new_init_disappears(without_init: ScriptedDaemon, spec: RunSpec) -> None:
    # Given a holder that is created, and is missing again when the container of the job is created
    without_init.answers["create?name=orchestrator-init"] = answer(201, {"Id": "0"})
    without_init.answers = {"/containers/json": answer(200, []), **without_init.answers}

    with pytest.raises(EngineUnavailable, match="removed the init"):
        DockerEngine(without_init.host).create(spec)


def test_a_missing_init_is_not_removed(without_init: ScriptedDaemon) -> None:
    # It would be the one that another worker has created meanwhile.
    init.Init(EngineClient(without_init.host, EngineIntervals())).checked_holder()

    assert without_init.count("DELETE") == 0


def test_a_damaged_init_is_removed_by_its_id(without_init: ScriptedDaemon) -> None:
    # Another worker may replace it by one of the same name.
    without_init.answers = {
        "/json": answer(200, {"Id": "0123"}),
        "/archive": answer(404, {"message": "Could not find the file"}),
        "DELETE": answer(204, {}),
        **without_init.answers,
    }

    init.Init(EngineClient(without_init.host, EngineIntervals())).checked_holder()

    assert [line.split()[1] for line in without_init.request_lines if "DELETE" in line] == ["/v1.41/containers/0123?v=1"]


def test_an_unrelated_error_that_names_the_holder_is_the_jobs(without_init: ScriptedDaemon, spec: RunSpec) -> None:
    without_init.answers["create?name=orchestrator-init"] = answer(409, {"message": "the name is in use by another container"})
    without_init.answers |= {"orchestrator-init": answer(200, {"Id": "0"}), "/containers/0": answer(204, {})}

    with pytest.raises(EngineRefused):
        DockerEngine(without_init.host).create(spec)


@pytest.mark.parametrize("architecture", ["riscv64", ""])
def test_engines_of_other_architectures_use_dockers_init(daemon: ScriptedDaemon, architecture: str) -> None:
    daemon.answers["/version"] = answer(200, {"ApiVersion": "1.41", "Arch": architecture})

    assert init.Init(EngineClient(daemon.host, EngineIntervals())).checked_holder() == ""
