"""The parts of a pod's manifest that move the files of its job."""

from dataclasses import dataclass, field
from typing import Any, Final

from jobs.engine.kubernetes.files.mover_client import PORT
from jobs.engine.kubernetes.files.mover_program import FILE, config_map_name
from jobs.engine.protocol import RunSpec, User

# Names of containers.
USER: Final = "user"
INPUTS: Final = "inputs"
OUTPUTS: Final = "outputs"

WORKSPACE_VOLUME: Final = "workspace"
_PROGRAM_VOLUME: Final = "orchestrator-mover"
_TOKENS_VOLUME: Final = "orchestrator-tokens"

# Below /dev, which is the container runtime's own: no image can have anything in the way there.
_PROGRAM_DIRECTORY: Final = "/dev/orchestrator"
_TOKENS_DIRECTORY: Final = "/run/orchestrator-tokens"
_WORKSPACE_DIRECTORY: Final = "/workspace"  # in the helpers
_TERMINATION_LOG: Final = "/dev/termination-log"
_PROGRAM: Final = f"{_PROGRAM_DIRECTORY}/{FILE}"

_RESOURCES: Final = {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}}
_INPUT_CAPABILITIES: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")  # to write files for any user
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
    init_containers: list[dict[str, Any]] = []
    if spec.has_inputs:
        if run_as is None:
            init_containers.append(_user(spec.image, pull_policy))
        init_containers.append(_mover(INPUTS, spec, helper, run_as, _INPUT_CAPABILITIES))
    return PodParts(
        init_containers=tuple(init_containers),
        containers=(_mover(OUTPUTS, spec, helper, run_as, _OUTPUT_CAPABILITIES),) if spec.has_outputs else (),
        volumes=(
            {
                "name": _PROGRAM_VOLUME,
                "configMap": {"name": config_map_name(helper.architecture), "defaultMode": 0o555},
            },
            {
                "name": _TOKENS_VOLUME,
                # For a user that the template chooses, the group of the volume is that of the pod's `fsGroup`, or root's.
                "secret": {"secretName": secret_name, "defaultMode": 0o400 if run_as is None else 0o444},
            },
        ),
        node_selector={"kubernetes.io/arch": helper.architecture},
    )


def user_in(termination_message: str) -> User | None:
    """Return the user that the container `USER` has reported at its end, or None if it has not."""
    numbers = termination_message.split()
    if len(numbers) != 2 or not all(number.isascii() and number.isdigit() for number in numbers):
        return None
    return User(int(numbers[0]), int(numbers[1]))


def _user(image: str, pull_policy: str) -> dict[str, Any]:
    """Return a container of the job's image that reports as which user its processes run."""
    return {
        "name": USER,
        "image": image,
        "imagePullPolicy": pull_policy,
        "command": [_PROGRAM, "user", _TERMINATION_LOG],
        "terminationMessagePath": _TERMINATION_LOG,
        "resources": _RESOURCES,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [_mount(_PROGRAM_VOLUME, _PROGRAM_DIRECTORY, read_only=True)],
    }


def _mover(name: str, spec: RunSpec, helper: Helper, run_as: User | None, capabilities: tuple[str, ...]) -> dict[str, Any]:
    """Return a container that serves the workspace to the worker."""
    security: dict[str, Any] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if run_as is None:
        security |= {"runAsUser": 0, "runAsGroup": 0, "capabilities": {"drop": ["ALL"], "add": list(capabilities)}}
    return {
        "name": name,
        "image": helper.image,
        "imagePullPolicy": helper.pull_policy,
        "command": [_PROGRAM, name, str(PORT), spec.workspace.replace("$", "$$"), _WORKSPACE_DIRECTORY, _TOKENS_DIRECTORY],
        "resources": _RESOURCES,
        "securityContext": security,
        "volumeMounts": [
            _mount(_PROGRAM_VOLUME, _PROGRAM_DIRECTORY, read_only=True),
            _mount(_TOKENS_VOLUME, _TOKENS_DIRECTORY, read_only=True),
            _mount(WORKSPACE_VOLUME, _WORKSPACE_DIRECTORY, read_only=name == OUTPUTS),
        ],
    }


def _mount(volume: str, path: str, *, read_only: bool) -> dict[str, Any]:
    return {"name": volume, "mountPath": path, "readOnly": read_only}
