"""The pod of a Job that is removed while the cluster's controllers have no time for it: on an API server that deletes nothing."""

from pathlib import Path
from typing import Any

import pytest

from tests.jobs.engine.kubernetes.scripted_api import ENDED, RUNNING, ScriptedApi, engine_of, pod

pytestmark = pytest.mark.stateless

WAITING = {"waiting": {"reason": "ImagePullBackOff"}}


def deletions(api: ScriptedApi, directory: Path, of_pod: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return what the removal of a Job deletes, and how."""
    api.objects["pods"] = [of_pod]
    with engine_of(api, directory) as engine:
        engine.remove("one", force=True)
    paths = [path.split("/")[-1] for method, path, _ in api.requests if method == "DELETE"]
    return list(zip(paths, [body for method, body in api.bodies if method == "DELETE"], strict=True))


@pytest.mark.parametrize("state", [None, WAITING, RUNNING])
def test_a_pod_that_runs_or_may_run_is_deleted_at_once(api: ScriptedApi, tmp_path: Path, state: dict[str, Any] | None) -> None:
    of_job, of_pod = deletions(api, tmp_path, pod("one", 6, state))

    assert of_job[0] == "one"
    assert of_pod == ("one-pod", {"gracePeriodSeconds": 0, "preconditions": {"uid": "uid-one-pod"}})


@pytest.mark.parametrize(("state", "phase"), [(ENDED, "Running"), (ENDED, "Succeeded"), (None, "Failed")])
def test_a_pod_that_has_ended_is_left_to_the_cluster(
    api: ScriptedApi, tmp_path: Path, state: dict[str, Any] | None, phase: str
) -> None:
    (of_job,) = deletions(api, tmp_path, pod("one", 6, state, phase=phase))

    assert of_job[0] == "one"
