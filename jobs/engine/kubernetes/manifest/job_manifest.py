"""The Job of a container, as the API server takes it."""

from typing import Any, Final

from jobs.engine import container_init
from jobs.engine.kubernetes.files import WORKSPACE_VOLUME, PodParts
from jobs.engine.kubernetes.manifest import init_program
from jobs.engine.kubernetes.names import (
    CONTAINER,
    NAME_LABEL,
    NETWORK_LABEL,
    NETWORK_NAME_LABEL,
    NOT_REQUESTED,
    PULL_POLICIES,
    START_LABEL,
)
from jobs.engine.kubernetes.pod_template import PodTemplate
from jobs.engine.protocol import RunSpec
from jobs.engine.pullable_reference import parse_reference

# All that ordinary images need as root (docs/adr/0002-container-privileges.md).
CAPABILITIES: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID")


def job(spec: RunSpec, template: PodTemplate, parts: PodParts, *, architecture: str, spare_seconds: int) -> dict[str, Any]:
    """Return the Job for a container. It is suspended: its pod is made only when it is started.

    `parts` move its files. `spare_seconds` is added to its time-out for its deadline: as long as pulling its image and its
    inputs may take, and more.
    Raise `ImageUnavailable` for a malformed reference.
    """
    labels = spec.labels | {NAME_LABEL: spec.name}  # the pod keeps this name if the Job is renamed
    network = {} if spec.network is None else {NETWORK_NAME_LABEL: spec.network}
    pod_labels = labels | {NETWORK_LABEL: "none" if spec.network is None else "bridge"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": spec.name, "labels": labels | network | {START_LABEL: NOT_REQUESTED}},
        "spec": {
            "suspend": True,
            "backoffLimit": 0,
            "template": template.merged(pod_labels, _pod(spec, parts, architecture, spare_seconds)),
        },
    }


def _pod(spec: RunSpec, parts: PodParts, architecture: str, spare_seconds: int) -> dict[str, Any]:
    with_init = spec.command is not None
    volumes = [_workspace(spec), *parts.volumes]
    selector = dict(parts.node_selector)
    if with_init:
        volumes.append(init_program.volume(architecture))
        selector["kubernetes.io/arch"] = architecture
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # PID 1 ignores SIGTERM. Without our init, that is the pause process of the pod then. And the helper that stays until
        # the outputs are out can only end processes that it sees.
        "shareProcessNamespace": not with_init or spec.has_outputs,
        "terminationGracePeriodSeconds": spec.stop_grace_seconds,
        "initContainers": list(parts.init_containers),
        # A node starts containers in this order: the helper listens before a process of the job could take its port.
        "containers": [*parts.containers, _container(spec)],
        "volumes": volumes,
        "nodeSelector": selector,
    }
    if spec.timeout_seconds is not None:
        # The pod's and not the Job's: the kubelet counts from the moment at which a node has accepted the pod, so the time that
        # the scheduler takes does not count. What the node needs for the image and the inputs does.
        pod["activeDeadlineSeconds"] = spec.timeout_seconds + spec.stop_grace_seconds + spare_seconds
    return pod


def _container(spec: RunSpec) -> dict[str, Any]:
    amounts = {"cpu": f"{spec.cpu_millis}m", "memory": f"{spec.memory_mib}Mi"}
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": parse_reference(spec.image).text,
        "imagePullPolicy": PULL_POLICIES[spec.pull_policy],
        "env": [{"name": name, "value": _literal(value)} for name, value in spec.environment.items()],
        "workingDir": spec.workspace,
        "resources": {"requests": amounts, "limits": dict(amounts)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": list(CAPABILITIES)},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": WORKSPACE_VOLUME, "mountPath": spec.workspace}],
    }
    if spec.disk_limit_bytes is not None:
        # What it writes to its own layer and its log. Nothing is reserved for it, as on Docker.
        container["resources"]["limits"]["ephemeral-storage"] = str(spec.disk_limit_bytes + spec.log_limit_bytes)
        container["resources"]["requests"]["ephemeral-storage"] = "0"
    if spec.command is not None:
        container["command"] = [container_init.COMMAND, *map(_literal, spec.command)]
        container["volumeMounts"].append(init_program.mount())
    return container


def _workspace(spec: RunSpec) -> dict[str, Any]:
    limit = {} if spec.disk_limit_bytes is None else {"sizeLimit": str(spec.disk_limit_bytes)}
    return {"name": WORKSPACE_VOLUME, "emptyDir": limit}


def _literal(text: str) -> str:
    """Return a text that reaches the program unchanged: Kubernetes replaces `$(NAME)`, and makes one `$` of two."""
    return text.replace("$", "$$")
