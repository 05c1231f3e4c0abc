"""Creates containers with our own init, and says why the engine refuses one."""

import logging
from dataclasses import replace
from functools import partial
from typing import Any

from jobs.engine import image_errors
from jobs.engine.docker import job_runtime
from jobs.engine.docker.container_json import creation_body
from jobs.engine.docker.disk import StorageLimit
from jobs.engine.docker.image_pulls import Images
from jobs.engine.docker.init import Init
from jobs.engine.docker.job_runtime import JobRuntime
from jobs.engine.docker.networks import Networks
from jobs.engine.docker.resource_limits import ResourceLimits
from jobs.engine.docker.start_errors import NO_COMMAND, cause_of
from jobs.engine.docker.transport import EngineAnswer, EngineClient
from jobs.engine.protocol import RunSpec
from jobs.errors import EngineInTrouble, EngineRefused, EngineUnavailable, ImageUnavailable, NetworkMissing, StartRefused

logger = logging.getLogger(__name__)


class ContainerCreation:
    """The creation of containers on one engine."""

    def __init__(
        self,
        client: EngineClient,
        init: Init,
        images: Images,
        networks: Networks,
        resource_limits: ResourceLimits,
        runtime: JobRuntime,
        storage_limit: StorageLimit,
    ) -> None:
        self._client = client
        self._init = init
        self._images = images
        self._networks = networks
        self._resource_limits = resource_limits
        self._runtime = runtime
        self._storage_limit = storage_limit

    def body(self, spec: RunSpec) -> dict[str, Any]:
        """Return the body of a request for a container. Raise `EngineRefused` if neither the job nor its image has a command."""
        body = self._described(spec)
        body["HostConfig"] |= {
            "Ulimits": self._resource_limits.ulimits(),
            "Runtime": self._runtime.name,
            "StorageOpt": self._storage_limit.options(spec.disk_limit_bytes, partial(self._images.size, spec.image)),
        }
        return body

    def _described(self, spec: RunSpec) -> dict[str, Any]:
        holder = self._init.checked_holder()
        if not holder or spec.command is not None:
            return creation_body(spec, holder)
        image_id, command = self._images.own_command(spec.image)
        if not command:
            raise EngineRefused(NO_COMMAND)
        # By its id, because the name may have been moved to an image with another command.
        return creation_body(replace(spec, command=command), holder) | {"Image": image_id}

    def request(self, name: str, body: dict[str, Any]) -> EngineAnswer:
        """Ask the engine for a container, and again if it had no init yet, or cannot limit its size."""
        answer = self._try(name, body)
        if answer.failed and self._storage_limit.refuses(answer.message):
            body["HostConfig"]["StorageOpt"] = {}
            answer = self._try(name, body)
        if answer.failed and self._init.is_missing(answer.message):
            self._init.make_holder()
            answer = self._try(name, body)
            if answer.failed and self._init.is_missing(answer.message) and not self._init.exists():
                raise EngineUnavailable("another worker has removed the init, which was damaged, and is installing it again")
        return answer

    def _try(self, name: str, body: dict[str, Any]) -> EngineAnswer:
        params, timeout = {"name": name}, self._client.intervals.long_call
        return self._client.exchange("POST", "/containers/create", params=params, body=body, timeout=timeout)

    def error(self, spec: RunSpec, body: dict[str, Any], answer: EngineAnswer) -> Exception:
        """Return what a refusal means."""
        if spec.network is not None and self._networks.is_missing(spec.network):
            return NetworkMissing(answer.message)
        if answer.status == 404:
            self._images.forget(spec.image)
            return ImageUnavailable(image_errors.not_on_engine(body["Image"]))
        if answer.status == 409:
            return answer.error()
        logger.warning("the engine did not create a container: %s", answer.message, extra={"container": spec.name})
        if job_runtime.is_unknown(answer.message):
            return EngineInTrouble(answer.message)
        cause = cause_of(answer.message, body)
        if answer.status < 500 or cause.fault == "job":
            return EngineRefused(cause.sentence)
        if cause.fault == "engine":
            return EngineInTrouble(answer.message)
        return StartRefused(answer.message, cause.sentence)
