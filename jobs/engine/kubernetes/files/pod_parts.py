"""The parts of a pod's manifest that move the files of its job."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

from jobs.engine.kubernetes.files.mover_client import PORT
from jobs.engine.kubernetes.files.mover_program import FILE, config_map_name
from jobs.engine.protocol import RunSpec, User

# Names of containers.
INPUTS: Final = "inputs"
OUTPUTS: Final = "outputs"

WORKSPACE_VOLUME: Final = "workspace"
_PROGRAM_VOLUME: Final = "orchestrator-mover"
_TOKENS_VOLUME: Final = "orchestrator-tokens"

# Below /dev, which is the container runtime's own: no image can have anything in the way there.
_PROGRAM_DIRECTORY: Final = "/dev/orchestrator"
_TOKENS_DIRECTORY: Final = "/run/orchestrator-tokens"
_WORKSPACE_DIRECTORY: Final = "/workspace"  # in the helpers
_PROGRAM: Final = f"{_PROGRAM_DIRECTORY}/{FILE}"

_RESOURCES: Final = {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}}
_INPUT_CAPABILITIES: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")  # if the image's user is root: to write as on Docker
_OUTPUT_CAPABILITIES: Final = ("DAC_OVERRIDE", "KILL")  # to read files of any user, and to stop their processes


@dataclass(frozen=True, slots=True)
class Helper:
    """How the helpers of an installation run."""

    image: str
    architecture: str  # of the nodes that jobs with files run on
    pull_policy: str = "IfNotPresent"  # of `image`


@dataclass(frozen=True, slots=True)
class PodParts:
    """What a job's files add to the manifest of its pod, which has a volume `WORKSPACE_VOLUME`; nothing if it has no files."""

    init_containers: tuple[dict[str, Any], ...] = ()
    containers: tuple[dict[str, Any], ...] = ()
    volumes: tuple[dict[str, Any], ...] = ()
    node_selector: dict[str, str] = field(default_factory=dict)


def pod_parts(spec: RunSpec, helper: Helper, secret_name: str, pull_policy: str, run_as: User | None = None) -> PodParts:
    """Return the parts for a job. `pull_policy` is that of its image; `run_as` is the user of all containers, if it is set."""
    if not spec.has_inputs and not spec.has_outputs:
        return PodParts()
    return PodParts(
        init_containers=(_inputs(spec, pull_policy, run_as),) if spec.has_inputs else (),
        containers=(_outputs(spec, helper, run_as),) if spec.has_outputs else (),
        volumes=(
            {
                "name": _PROGRAM_VOLUME,
                "configMap": {"name": config_map_name(helper.architecture), "defaultMode": 0o555},
            },
            # Any user may have to read the tokens. The job's processes do not see this volume.
            {"name": _TOKENS_VOLUME, "secret": {"secretName": secret_name, "defaultMode": 0o444}},
        ),
        node_selector={"kubernetes.io/arch": helper.architecture},
    )


def _inputs(spec: RunSpec, pull_policy: str, run_as: User | None) -> dict[str, Any]:
    """Return a container of the job's image, so that what it unpacks belongs to the image's user. Nothing of the image runs."""
    capabilities = _INPUT_CAPABILITIES if run_as is None else ()
    return _mover(INPUTS, spec, capabilities) | {"image": spec.image, "imagePullPolicy": pull_policy}


def _outputs(spec: RunSpec, helper: Helper, run_as: User | None) -> dict[str, Any]:
    """Return a container beside that of the job, as root unless the template chooses a user."""
    container = _mover(OUTPUTS, spec, _OUTPUT_CAPABILITIES if run_as is None else ())
    if run_as is None:
        container["securityContext"] |= {"runAsUser": 0, "runAsGroup": 0}
    return container | {"image": helper.image, "imagePullPolicy": helper.pull_policy}


def _mover(name: str, spec: RunSpec, capabilities: Collection[str]) -> dict[str, Any]:
    """Return what these containers have in common."""
    return {
        "name": name,
        "command": [_PROGRAM, name, str(PORT), spec.workspace.replace("$", "$$"), _WORKSPACE_DIRECTORY, _TOKENS_DIRECTORY],
        "resources": _RESOURCES,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": list(capabilities)},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            _mount(_PROGRAM_VOLUME, _PROGRAM_DIRECTORY, read_only=True),
            _mount(_TOKENS_VOLUME, _TOKENS_DIRECTORY, read_only=True),
            _mount(WORKSPACE_VOLUME, _WORKSPACE_DIRECTORY, read_only=name == OUTPUTS),
        ],
    }


def _mount(volume: str, path: str, *, read_only: bool) -> dict[str, Any]:
    return {"name": volume, "mountPath": path, "readOnly": read_only}
