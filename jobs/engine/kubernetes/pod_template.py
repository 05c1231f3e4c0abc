"""The operator's pod template (KUBE_POD_TEMPLATE), with which the pods of jobs are made.

It adds what a cluster needs. What the product promises about a job's container it cannot change: a template that tries to is
refused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from jobs.engine.kubernetes.names import QUEUE_LABEL
from jobs.engine.protocol import User
from jobs.errors import EngineRefused

VARIABLE: Final = "KUBE_POD_TEMPLATE"

_SPEC: Final = frozenset(
    {
        "affinity",
        "dnsConfig",
        "dnsPolicy",
        "hostAliases",
        "imagePullSecrets",
        "nodeSelector",
        "overhead",
        "preemptionPolicy",
        "priority",
        "priorityClassName",
        "runtimeClassName",
        "schedulerName",
        "securityContext",
        "serviceAccountName",
        "tolerations",
        "topologySpreadConstraints",
    }
)
_SECURITY: Final = frozenset(
    {
        "appArmorProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "runAsGroup",
        "runAsNonRoot",
        "runAsUser",
        "seLinuxOptions",
        "seccompProfile",
        "supplementalGroups",
    }
)
_METADATA: Final = frozenset({"annotations", "labels"})
_OURS: Final = ("orchestrator.", "batch.kubernetes.io/", "controller-uid", "job-name")


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """What operators have added to the pods of jobs."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_set(self) -> bool:
        """Whether it adds anything."""
        return bool(self.labels or self.annotations or self.spec)

    @property
    def queue(self) -> str:
        """The queue of Kueue that starts Jobs; empty: they start without one."""
        return self.labels.get(QUEUE_LABEL, "")

    @property
    def architecture(self) -> str:
        """The architecture of the nodes that it selects; empty: any."""
        return str(self.spec.get("nodeSelector", {}).get("kubernetes.io/arch", ""))

    @property
    def run_as(self) -> User | None:
        """The user that it sets for all processes of a pod."""
        security = self.spec.get("securityContext", {})
        return User(security["runAsUser"], security.get("runAsGroup", 0)) if "runAsUser" in security else None

    def merged(self, labels: Mapping[str, str], spec: Mapping[str, Any]) -> dict[str, Any]:
        """Return the template of a Job's pod. Where both have something, ours wins, and their maps are joined."""
        metadata: dict[str, Any] = {"labels": {**self.labels, **labels}}
        if self.annotations:
            metadata["annotations"] = dict(self.annotations)
        return {"metadata": metadata, "spec": _joined(self.spec, spec)}


def load(path: Path | None, runtime: str = "") -> PodTemplate:
    """Read and check the template. `runtime` is JOB_RUNTIME.

    Raise `EngineRefused`, whose text begins with the name of the variable.
    """
    template = PodTemplate() if path is None else _checked(_read(path))
    if not runtime:
        return template
    if template.spec.get("runtimeClassName", runtime) != runtime:
        raise EngineRefused(f"{VARIABLE}: spec.runtimeClassName and JOB_RUNTIME are different")
    return PodTemplate(template.labels, template.annotations, {**template.spec, "runtimeClassName": runtime})


def _read(path: Path) -> object:
    try:
        return yaml.safe_load(path.read_text())  # JSON is YAML, too
    except (OSError, UnicodeDecodeError) as error:
        raise EngineRefused(f"{VARIABLE} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f" in line {place.line + 1}" if place else ""
        raise EngineRefused(f"{VARIABLE} is neither YAML nor JSON{where}: {path}") from error


def _checked(content: object) -> PodTemplate:
    template = _map(content, "")
    if template.get("kind") == "PodTemplate":  # the object of this name has the pod's template in a member
        template = _map(template.get("template"), "template")
    unknown = sorted(template.keys() - {"apiVersion", "kind", "metadata", "spec"})
    if unknown:
        raise EngineRefused(f"{VARIABLE}: {unknown[0]} is not a member of a pod template: expected metadata and spec")
    metadata, spec = _map(template.get("metadata"), "metadata"), _map(template.get("spec"), "spec")
    for problem in (*_problems("metadata", metadata, _METADATA), *_problems("spec", spec, _SPEC)):
        raise EngineRefused(f"{VARIABLE}: {problem}")
    for problem in _problems("spec.securityContext", _map(spec.get("securityContext"), "spec.securityContext"), _SECURITY):
        raise EngineRefused(f"{VARIABLE}: {problem}")
    labels, annotations = (_texts(metadata.get(name), f"metadata.{name}") for name in ("labels", "annotations"))
    for name in labels:
        if name.startswith(_OURS):
            raise EngineRefused(f"{VARIABLE}: the label {name} belongs to the service or to the cluster")
    return PodTemplate(labels, annotations, spec)


def _problems(where: str, found: Mapping[str, Any], allowed: frozenset[str]) -> Iterator[str]:
    for name in sorted(found.keys() - allowed):
        yield f"{where}.{name} cannot be set: expected only {', '.join(sorted(allowed))}"


def _map(found: object, where: str) -> Mapping[str, Any]:
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise EngineRefused(f"{VARIABLE}: {where or 'the file'} must be a map with names")
    return found


def _texts(found: object, where: str) -> Mapping[str, str]:
    texts = _map(found, where)
    for name, text in texts.items():
        if not isinstance(text, str):
            raise EngineRefused(f"{VARIABLE}: {where}.{name} must be text; quote it")
    return texts


def _joined(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    joined = {**theirs, **ours}
    for name in theirs.keys() & ours.keys():
        if isinstance(theirs[name], Mapping) and isinstance(ours[name], Mapping):
            joined[name] = _joined(theirs[name], ours[name])
    return joined
