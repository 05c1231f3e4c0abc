"""Creates Jobs, and what their pods need besides: the programs of ours that they mount."""

import copy
import logging
import math
import threading
from typing import Any, Final

from jobs.engine.kubernetes import files
from jobs.engine.kubernetes.api.cluster_client import Answer, ClusterClient
from jobs.engine.kubernetes.cluster_settings import ClusterSettings
from jobs.engine.kubernetes.manifest import init_program, job_manifest
from jobs.engine.kubernetes.pod_helpers import PodHelpers
from jobs.engine.kubernetes.pod_template import VARIABLE, PodTemplate
from jobs.engine.protocol import RunSpec
from jobs.errors import EngineRefused, JobError

logger = logging.getLogger(__name__)

_QUOTA: Final = "exceeded quota"  # which changes all the time
_SAMPLE: Final = RunSpec(
    name="orchestrator-check",
    image="image",
    command=("true",),
    environment={},
    workspace="/workspace",
    cpu_millis=1,
    memory_mib=1,
    network="bridge",
    labels={},
    stop_grace_seconds=1,
    log_limit_bytes=1,
    disk_limit_bytes=1,
    timeout_seconds=1,
)


class JobCreation:
    """The creation of Jobs in one namespace. Thread-safe."""

    def __init__(
        self, client: ClusterClient, template: PodTemplate, helpers: PodHelpers, architecture: str, settings: ClusterSettings
    ) -> None:
        self._client = client
        self._template = template
        self._helpers = helpers
        self._architecture = architecture
        self._settings = settings
        self._accepted = threading.Event()  # once the cluster would take a Job
        self._installed = threading.Event()  # once our programs are in the namespace

    def using(self, client: ClusterClient, helpers: PodHelpers) -> "JobCreation":
        """Return the same creation by another client."""
        creation = copy.copy(self)
        creation._client, creation._helpers = client, helpers
        return creation

    def body(self, spec: RunSpec) -> dict[str, Any]:
        """Return the Job for a container. Raise `ImageUnavailable` for a malformed reference."""
        inputs = self._settings.transfer_timeout if spec.has_inputs else 0
        spare = math.ceil(self._settings.pull_timeout + inputs + self._client.intervals.cluster_deadline)
        parts = self._helpers.parts(spec)
        return job_manifest.job(spec, self._template, parts, architecture=self._architecture, spare_seconds=spare)

    def request(self, body: dict[str, Any]) -> Answer:
        """Ask the cluster for a Job."""
        self._install_programs()
        return self._client.exchange("POST", self._client.jobs(), body=body)

    def error(self, answer: Answer) -> JobError:
        """Return what a refusal means."""
        if answer.status not in (400, 422):
            return answer.error()
        logger.warning("the cluster did not create a Job: %s", answer.message)
        if ".env[" in answer.message:
            return EngineRefused("an environment variable has an invalid name")
        return EngineRefused("the cluster refuses the job as it is; the service's log has the details")

    def refusal(self) -> str:
        """Return why the cluster would take no Job, as a sentence for operators; empty if it would. Asks only until it would."""
        if self._accepted.is_set():
            return ""
        try:
            body = self.body(_SAMPLE)
        except EngineRefused as error:
            return str(error)
        params = {"dryRun": "All", "fieldValidation": "Strict"}
        answer = self._client.exchange("POST", self._client.jobs(), params=params, body=body)
        if answer.status in (400, 403, 404, 422) and _QUOTA not in answer.message:
            cause = f"{VARIABLE}: the cluster refuses Jobs with it" if self._template.is_set else "the cluster refuses Jobs"
            return f"{cause}: {answer.message}"
        if answer.failed and _QUOTA not in answer.message:
            raise answer.error()
        self._accepted.set()
        return ""

    def _install_programs(self) -> None:
        """Make the ConfigMaps with our programs, unless that was done before."""
        if self._installed.is_set():
            return
        for body in (init_program.config_map(self._architecture), files.config_map(self._architecture, {})):
            answer = self._client.exchange("POST", self._client.core("configmaps"), body=body)
            if answer.failed and answer.status != 409:
                raise answer.error()
        self._installed.set()
