"""The manifests of deploy/kubernetes/ as kustomize renders them, for machines that have no kustomize."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

KUSTOMIZE: Final = ("kubectl", "kustomize")
KNOWN: Final = {"apiVersion", "kind", "resources", "patches", "images"}

NAMESPACES: Final = ("orchestrator", "orchestrator-jobs")

# Lists that a patch merges with, by what distinguishes their elements. It replaces all other lists.
MERGED_BY: Final = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "env": "name",
    "topologySpreadConstraints": "topologyKey",
}

Manifest = dict[str, Any]


def rendered(directory: Path) -> list[Manifest]:
    """Return the objects of a kustomization that has resources, patches with a `kind` and images, and nothing else."""
    kustomization = yaml.safe_load((directory / "kustomization.yaml").read_text())
    assert set(kustomization) <= KNOWN, f"only {sorted(KNOWN)} are known here"
    objects = [each for name in kustomization["resources"] for each in documents((directory / name).read_text())]
    for patch in kustomization["patches"]:
        assert set(patch) == {"path", "target"}
        assert set(patch["target"]) == {"kind"}
        [change] = documents((directory / patch["path"]).read_text())
        for each in objects:
            if re.fullmatch(patch["target"]["kind"], each["kind"]):
                merge(each["spec"], change["spec"])
    for image in kustomization["images"]:
        for container in containers(objects):
            if container["image"] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    return objects


def rendered_by_kustomize(directory: Path) -> list[Manifest]:
    """Return what kustomize makes of it. Raise `FileNotFoundError` if it is not installed."""
    return documents(subprocess.run([*KUSTOMIZE, directory], check=True, capture_output=True, text=True, timeout=60).stdout)


def documents(text: str) -> list[Manifest]:
    return [each for each in yaml.safe_load_all(text) if each]


def containers(objects: list[Manifest]) -> Iterator[Manifest]:
    """Yield all containers of all templates of pods."""
    for each in objects:
        pod = each.get("spec", {}).get("template", {}).get("spec", {})
        yield from (*pod.get("initContainers", []), *pod.get("containers", []))


def merge(target: Manifest, change: Manifest) -> None:
    """Merge a strategic patch into an object."""
    for name, value in change.items():
        if isinstance(value, dict) and name in target:
            merge(target[name], value)
        elif name in MERGED_BY and name in target:
            target[name] = merged_lists(target[name], value, MERGED_BY[name])
        else:
            target[name] = copied(value)  # the next object gets one of its own


def merged_lists(elements: list[Manifest], changes: list[Manifest], key: str) -> list[Manifest]:
    """Return the elements with their changes, after new ones, as kustomize orders them."""
    by_key = {element[key]: element for element in elements}
    for change in changes:
        if change[key] in by_key:
            merge(by_key[change[key]], change)
    new = [copied(change) for change in changes if change[key] not in by_key]
    return [*new, *elements]


def collection(manifest: Manifest) -> str:
    """Return the path of all objects of its kind."""
    version, namespace = manifest["apiVersion"], manifest["metadata"].get("namespace")
    kind = f"{manifest['kind'].lower()}s".replace("policys", "policies")
    return "/".join(
        ("/api/v1" if version == "v1" else f"/apis/{version}", *(("namespaces", namespace) if namespace else ()), kind)
    )


def in_namespaces(manifest: Manifest, suffix: str) -> Manifest:
    """Return an object for other namespaces than those of the manifests, where an installation may be."""
    changed: Manifest = copied(manifest)
    named = [changed["metadata"], *changed.get("subjects", [])]
    for one in named:
        if one.get("namespace") in NAMESPACES:
            one["namespace"] += suffix
    if changed["kind"] == "Namespace":
        changed["metadata"]["name"] += suffix
    return changed


def copied(manifest: Manifest) -> Manifest:
    found: Manifest = yaml.safe_load(yaml.safe_dump(manifest))
    return found
