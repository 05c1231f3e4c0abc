"""The helpers of pods, which move the files of jobs: how they are set up, and how they are reached."""

import copy
import logging
import secrets
import socket
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from jobs.engine.kubernetes.api.cluster_client import ClusterClient, core_path
from jobs.engine.kubernetes.api.cluster_objects import JobAndPod, Object
from jobs.engine.kubernetes.cluster_settings import ClusterSettings
from jobs.engine.kubernetes.files import (
    INPUTS,
    OUTPUTS,
    FilesOfPod,
    Helper,
    PodFiles,
    PodParts,
    Tokens,
    new_tokens,
    pod_parts,
    secret,
    tokens_in,
)
from jobs.engine.kubernetes.names import CONTAINER, NAME_LABEL, PULL_POLICIES
from jobs.engine.kubernetes.pod_template import PodTemplate
from jobs.engine.kubernetes.states.pod_status import container_state, has_run, how_ended, is_over, parse_time, start_failure
from jobs.engine.kubernetes.states.start_progress import helper_failure
from jobs.engine.protocol import RunSpec
from jobs.engine.pullable_reference import parse_reference
from jobs.errors import EngineRefused, EngineUnavailable, JobError

logger = logging.getLogger(__name__)

_MAX_TOKENS: Final = 4096  # that are remembered; others are read from the cluster
_OUTSIDE: Final = "KUBE_HELPER_IMAGE is not set, and the worker does not run in the cluster: set it"
_NOT_READABLE: Final = (
    "KUBE_HELPER_IMAGE is not set, and the worker's own pod cannot be read: set it, or allow the worker to get its pod"
)
_SUFFIX_BYTES: Final = 4
_NO_POD: Final = "the pod has ended or was removed, and its files with it"
_NONE: Final = "the pod was made without a helper that reads its files"
_NOT_STARTED: Final = "its node did not start the helper of the pod, which reads its files; the service's log has the details"
_HAS_ENDED: Final = "the helper of the pod, which reads its files, has ended: its memory was too small, or the job has killed it"


class PodHelpers:
    """The helpers of one installation's pods. Thread-safe."""

    def __init__(self, client: ClusterClient, template: PodTemplate, architecture: str, settings: ClusterSettings) -> None:
        self._client = client
        self._pull_timeout = settings.pull_timeout
        self._run_as = template.run_as
        self._architecture = architecture
        self._shared = _Shared(settings.helper_image)

    def using(self, client: ClusterClient) -> "PodHelpers":
        """Return the same helpers, reached through another client."""
        helpers = copy.copy(self)
        helpers._client = client
        return helpers

    def image(self) -> str:
        """Return the image of the helpers. Raise `EngineRefused` if it is not known."""
        with self._shared.lock:
            if not self._shared.image:
                self._shared.image = self._own_image()
            return self._shared.image

    def parts(self, spec: RunSpec) -> PodParts:
        """Return what the files of a job add to its pod."""
        image = self.image() if spec.has_outputs else ""
        # A Job may get the name of one that was just deleted, whose Secret the cluster still has.
        name = f"{spec.name}-{secrets.token_hex(_SUFFIX_BYTES)}"
        with_reference = replace(spec, image=parse_reference(spec.image).text)
        return pod_parts(with_reference, Helper(image, self._architecture), name, PULL_POLICIES[spec.pull_policy], self._run_as)

    def make_tokens(self, job: Object) -> None:
        """Make the tokens for the pod of a new Job, if it has helpers."""
        name = _secret_name(job)
        if not name:
            return
        tokens = new_tokens()
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
        labels = {NAME_LABEL: job["metadata"]["labels"][NAME_LABEL]}
        self._client.call("POST", self._client.core("secrets"), body=secret(name, tokens, labels, owner))
        self._shared.remember(job["metadata"]["uid"], tokens)

    def files(self, found: JobAndPod) -> PodFiles:
        """Return access to the files of a pod.

        Raise `EngineUnavailable` if its helper does not run yet, and `EngineRefused` if it never will, if there is none, or none
        any more: the job may have ended it.
        """
        if found.pod is None or found.pod_is_gone or is_over(found.pod):
            raise EngineRefused(_NO_POD)
        helper, exists = (OUTPUTS, has_outputs(found.job)) if has_run(found.pod) else (INPUTS, has_inputs(found.job))
        if not exists:
            raise EngineRefused(_NONE)
        if "terminated" in container_state(found.pod, helper):
            raise self._ended(found.key, found.pod, helper)
        if not _runs(found, helper):
            raise self._not_running(found.key, found.pod, helper)
        workspace = container_of(found.job)["workingDir"]
        place = FilesOfPod(found.pod["status"]["podIP"], workspace, self._tokens(found.job))
        return PodFiles(place, self._client.intervals, self._client.interrupt, self._client.max_silence)

    def _ended(self, key: str, pod: Object, helper: str) -> JobError:
        logger.warning("the files of a pod cannot be reached: %s", how_ended(pod, helper), extra={"container": key})
        return EngineRefused(_NOT_STARTED if start_failure(pod, helper) else _HAS_ENDED)

    def _not_running(self, key: str, pod: Object, helper: str) -> JobError:
        failed = helper_failure(pod, helper)
        if failed is not None and (failed.is_final or self._had_time_to_pull(pod)):
            words = getattr(failed.failure, "words", failed.failure)
            logger.warning("the helper of a pod cannot be started: %s", words, extra={"container": key})
            return EngineRefused(f"the helper of the pod, which reads its files, cannot be started: {failed.failure}")
        reason = (container_state(pod, helper).get("waiting") or {}).get("reason", "its node has not reported it")
        return EngineUnavailable(f"the container {helper} of the pod, which moves its files, does not run yet: {reason}")

    def _had_time_to_pull(self, pod: Object) -> bool:
        """Return whether its node has had the pod for the time that a pull may take, by the cluster's clock."""
        since = parse_time(pod["status"].get("startTime"))
        now = self._client.exchange("GET", self._client.core()).clock
        return since is not None and now is not None and (now - since).total_seconds() >= self._pull_timeout

    def _tokens(self, job: Object) -> Tokens:
        uid = job["metadata"]["uid"]
        tokens = self._shared.recall(uid)
        if tokens is None:
            tokens = tokens_in(self._client.call("GET", self._client.core("secrets", _secret_name(job))))
            self._shared.remember(uid, tokens)
        return tokens

    def _own_image(self) -> str:
        if not self._client.own_namespace:
            raise EngineRefused(_OUTSIDE)
        answer = self._client.exchange("GET", core_path(self._client.own_namespace, "pods", socket.gethostname()))
        if answer.status in (403, 404):
            raise EngineRefused(_NOT_READABLE)
        if answer.failed:
            raise EngineUnavailable(answer.message)
        return str(answer.data["spec"]["containers"][0]["image"])


class _Shared:
    """What all copies share."""

    def __init__(self, image: str) -> None:
        self.lock = threading.Lock()
        self.image = image  # KUBE_HELPER_IMAGE; empty: that of the worker's own pod, once it is known
        self._tokens: OrderedDict[str, Tokens] = OrderedDict()

    def remember(self, uid: str, tokens: Tokens) -> None:
        with self.lock:
            self._tokens[uid] = tokens
            while len(self._tokens) > _MAX_TOKENS:
                self._tokens.popitem(last=False)

    def recall(self, uid: str) -> Tokens | None:
        with self.lock:
            return self._tokens.get(uid)


def has_inputs(job: Object) -> bool:
    """Return whether the pod of a Job takes inputs before its process starts."""
    return any(one["name"] == INPUTS for one in _pod_spec(job).get("initContainers") or ())


def has_outputs(job: Object) -> bool:
    """Return whether the pod of a Job has a helper beside its process."""
    return any(one["name"] == OUTPUTS for one in _pod_spec(job)["containers"])


def inputs_are_open(found: JobAndPod) -> bool:
    """Return whether the pod takes inputs now."""
    return _runs(found, INPUTS)


def outputs_are_open(found: JobAndPod) -> bool:
    """Return whether the helper beside the job's process runs."""
    return _runs(found, OUTPUTS)


def _runs(found: JobAndPod, container: str) -> bool:
    return found.pod is not None and not found.pod_is_gone and "running" in container_state(found.pod, container)


def _secret_name(job: Object) -> str:
    for volume in _pod_spec(job)["volumes"]:
        if "secret" in volume:
            return str(volume["secret"]["secretName"])
    return ""


def container_of(job: Object) -> Mapping[str, Any]:
    """Return the description of the container that runs a job's process."""
    return next(one for one in _pod_spec(job)["containers"] if one["name"] == CONTAINER)


def _pod_spec(job: Object) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = job["spec"]["template"]["spec"]
    return spec
