"""The outputs of a job whose node cannot pull KUBE_HELPER_IMAGE, or has lost its container: on a scripted API server."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import EngineRefused, EngineUnavailable
from tests.jobs.engine.kubernetes.scripted_api import ENDED, ScriptedApi, engine_of, job, pod

pytestmark = pytest.mark.stateless

PULL_TIMEOUT = 600.0
HELPER = {"name": "outputs", "image": "registry/helper:1"}
UNREACHABLE = {"reason": "ErrImagePull", "message": "dial tcp: connection refused"}
FOR_GOOD = [
    {"reason": "ErrImageNeverPull"},
    {"reason": "InvalidImageName"},
    {"reason": "ErrImagePull", "message": 'failed to resolve reference "registry/helper:1": registry/helper:1: not found'},
]
NOT_CREATED = {"reason": "CreateContainerError", "message": "context deadline exceeded"}
FOR_NOW = [UNREACHABLE, {"reason": "ImagePullBackOff"}, NOT_CREATED]


def look_for_output(api: ScriptedApi, directory: Path, waiting: dict[str, Any], *, seconds_on_node: float) -> None:
    """Look into the workspace of a job that has ended, and whose helper waits."""
    look_at_helper(api, directory, {"waiting": waiting}, seconds_on_node=seconds_on_node)


def look_at_helper(api: ScriptedApi, directory: Path, state: dict[str, Any], *, seconds_on_node: float = 1) -> None:
    made = job("one", 5)
    made["spec"]["template"]["spec"]["containers"].append(HELPER)
    on_node_since = datetime.now(UTC) - timedelta(seconds=seconds_on_node)
    ended = pod("one", 6, ENDED, startTime=on_node_since.isoformat())
    ended["spec"]["containers"].append(HELPER)
    ended["status"]["containerStatuses"].append({"name": "outputs", "state": state})
    api.objects |= {"jobs": [made], "pods": [ended]}
    with engine_of(api, directory, pull_timeout=PULL_TIMEOUT) as engine:
        engine.stat("one", "/workspace/output")


@pytest.mark.parametrize("waiting", FOR_GOOD)
def test_outputs_fail_at_once_if_the_image_will_never_be_there(api: ScriptedApi, tmp_path: Path, waiting: dict[str, Any]) -> None:
    with pytest.raises(EngineRefused, match=r"registry/helper:1 .*KUBE_HELPER_IMAGE"):
        look_for_output(api, tmp_path, waiting, seconds_on_node=0)


@pytest.mark.parametrize("waiting", FOR_NOW)
def test_outputs_wait_as_long_as_a_pull_may_take(api: ScriptedApi, tmp_path: Path, waiting: dict[str, Any]) -> None:
    with pytest.raises(EngineUnavailable, match="does not run yet"):
        look_for_output(api, tmp_path, waiting, seconds_on_node=PULL_TIMEOUT - 60)

    with pytest.raises(EngineRefused, match="cannot be started"):
        look_for_output(api, tmp_path, waiting, seconds_on_node=PULL_TIMEOUT + 60)


def test_the_registry_is_named_with_the_variable_but_not_quoted(api: ScriptedApi, tmp_path: Path) -> None:
    with pytest.raises(EngineRefused, match=r"cannot be reached.*KUBE_HELPER_IMAGE") as refusal:
        look_for_output(api, tmp_path, UNREACHABLE, seconds_on_node=PULL_TIMEOUT + 60)

    assert "dial tcp" not in str(refusal.value)


def test_what_the_container_runtime_said_is_for_operators(
    api: ScriptedApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(EngineRefused, match="the service's log has the details") as refusal:
        look_for_output(api, tmp_path, NOT_CREATED, seconds_on_node=PULL_TIMEOUT + 60)

    assert "context deadline" not in str(refusal.value)
    assert "context deadline exceeded" in caplog.text


def test_a_pull_that_goes_on_is_waited_for(api: ScriptedApi, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="ContainerCreating"):
        look_for_output(api, tmp_path, {"reason": "ContainerCreating"}, seconds_on_node=10 * PULL_TIMEOUT)


def test_outputs_fail_if_the_node_has_not_started_the_helper(
    api: ScriptedApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = {"terminated": {"reason": "StartError", "exitCode": 128, "message": "failed to create task: context canceled"}}

    with pytest.raises(EngineRefused, match=r"its node did not start the helper .* the service's log has the details") as refusal:
        look_at_helper(api, tmp_path, state)

    assert "context canceled" not in str(refusal.value)
    assert "context canceled" in caplog.text


def test_outputs_fail_if_the_helper_was_killed(api: ScriptedApi, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(EngineRefused, match="has ended: its memory was too small, or the job has killed it"):
        look_at_helper(api, tmp_path, {"terminated": {"reason": "OOMKilled", "exitCode": 137}})

    assert "the container outputs has ended with exit code 137: OOMKilled" in caplog.text
