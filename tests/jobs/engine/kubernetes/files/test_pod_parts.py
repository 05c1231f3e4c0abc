"""What the files of a job add to the manifest of its pod, and its tokens."""

import base64
from dataclasses import replace
from typing import Any

import pytest

from jobs.engine.kubernetes.files import Helper, new_tokens, pod_parts, secret, tokens_in
from jobs.engine.protocol import RunSpec, User
from jobs.errors import EngineUnavailable

pytestmark = pytest.mark.stateless

HELPER = Helper("helper:1", "amd64")
SPEC = RunSpec(
    name="job",
    image="image:1",
    command=None,
    environment={},
    workspace="/work/$(HOME)",
    cpu_millis=1000,
    memory_mib=128,
    network=None,
    labels={},
    stop_grace_seconds=10,
    log_limit_bytes=1,
)


def names(containers: tuple[dict[str, Any], ...]) -> list[str]:
    return [container["name"] for container in containers]


@pytest.mark.parametrize(
    ("has_inputs", "has_outputs", "run_as", "expected"),
    [
        (False, False, None, ([], [])),
        (True, False, None, (["inputs"], [])),
        (False, True, None, ([], ["outputs"])),
        (True, True, None, (["inputs"], ["outputs"])),
        (True, True, User(1000, 1000), (["inputs"], ["outputs"])),
    ],
)
def test_a_job_has_the_containers_that_its_files_need(
    has_inputs: bool, has_outputs: bool, run_as: User | None, expected: tuple[list[str], list[str]]
) -> None:
    spec = replace(SPEC, has_inputs=has_inputs, has_outputs=has_outputs)

    parts = pod_parts(spec, HELPER, "secret", "Always", run_as)

    assert (names(parts.init_containers), names(parts.containers)) == expected
    assert bool(parts.volumes) == bool(parts.node_selector) == (has_inputs or has_outputs)


def test_inputs_are_unpacked_in_the_image_of_the_job() -> None:
    parts = pod_parts(SPEC, HELPER, "secret", "Always")

    inputs, outputs = [*parts.init_containers, *parts.containers]
    assert [container["image"] for container in (inputs, outputs)] == ["image:1", "helper:1"]


def test_outputs_cannot_be_written_by_their_helper() -> None:
    parts = pod_parts(SPEC, HELPER, "secret", "Always")

    read_only = {
        container["name"]: {mount["name"]: mount["readOnly"] for mount in container["volumeMounts"]}["workspace"]
        for container in (*parts.init_containers, *parts.containers)
    }
    assert read_only == {"inputs": False, "outputs": True}


def test_a_helper_has_few_privileges() -> None:
    parts = pod_parts(SPEC, HELPER, "secret", "Always")
    templated = pod_parts(SPEC, HELPER, "secret", "Always", User(1000, 1000))

    for container in (*parts.init_containers, *parts.containers, *templated.init_containers, *templated.containers):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    for container in (*templated.init_containers, *templated.containers):
        assert "runAsUser" not in container["securityContext"]
        assert container["securityContext"]["capabilities"]["add"] == []


def test_a_path_is_not_expanded_by_the_cluster() -> None:
    parts = pod_parts(SPEC, HELPER, "secret", "Always")

    assert parts.containers[0]["command"][3] == "/work/$$(HOME)"


def test_tokens_are_random_and_hidden() -> None:
    one, other = new_tokens(), new_tokens()

    assert len({one.asked, one.answered, other.asked, other.answered}) == 4
    assert one.asked not in repr(one)
    assert one.answered not in repr(one)


def test_tokens_are_read_from_their_secret() -> None:
    tokens = new_tokens()
    manifest = secret("name", tokens, {"label": "value"}, {"kind": "Job", "name": "job", "uid": "1"})

    stored = {"data": {key: base64.b64encode(value.encode()).decode() for key, value in manifest["stringData"].items()}}

    assert tokens_in(stored) == tokens
    assert manifest["metadata"]["ownerReferences"] == [{"kind": "Job", "name": "job", "uid": "1"}]


@pytest.mark.parametrize("data", [None, {}, {"asked": "!", "answered": "!"}, {"asked": "MQ==", "answered": "MQ=="}, {"asked": 1}])
def test_a_secret_without_tokens_is_reported(data: object) -> None:
    with pytest.raises(EngineUnavailable):
        tokens_in({"data": data})
