"""Creates Jobs, and what their pods need besides: the programs of ours that they mount."""

import copy
import logging
import threading
from typing import Any

from jobs.engine.kubernetes import files, init_program, manifest
from jobs.engine.kubernetes.cluster_client import Answer, ClusterClient
from jobs.engine.kubernetes.cluster_settings import ClusterSettings
from jobs.engine.kubernetes.pod_helpers import PodHelpers
from jobs.engine.kubernetes.pod_template import PodTemplate
from jobs.engine.protocol import RunSpec
from jobs.errors import EngineRefused, JobError

logger = logging.getLogger(__name__)


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
        self._installed = threading.Event()  # once our programs are in the namespace

    def using(self, client: ClusterClient, helpers: PodHelpers) -> "JobCreation":
        """Return the same creation by another client."""
        creation = copy.copy(self)
        creation._client, creation._helpers = client, helpers
        return creation

    def body(self, spec: RunSpec) -> dict[str, Any]:
        """Return the Job for a container. Raise `ImageUnavailable` for a malformed reference."""
        start_seconds = self._settings.pull_timeout + (self._settings.transfer_timeout if spec.has_inputs else 0)
        parts = self._helpers.parts(spec)
        return manifest.job(spec, self._template, parts, architecture=self._architecture, start_seconds=int(start_seconds))

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

    def _install_programs(self) -> None:
        """Make the ConfigMaps with our programs, unless that was done before."""
        if self._installed.is_set():
            return
        for body in (init_program.config_map(self._architecture), files.config_map(self._architecture, {})):
            answer = self._client.exchange("POST", self._client.core("configmaps"), body=body)
            if answer.failed and answer.status != 409:
                raise answer.error()
        self._installed.set()
