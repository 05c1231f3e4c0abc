"""The container of one claim: its name, its description, and how an older claim's becomes ours."""

import math

from jobs.engine.protocol import Engine, Observation, RunSpec
from jobs.errors import ContainerNotFound
from jobs.interrupt import Interrupt
from jobs.lifecycle import Claim
from jobs.models import Job, Node
from jobs.running.container_adoption import adopt
from orchestrator_site.base.config.configuration import Configuration

INSTANCE_LABEL = "orchestrator.instance"
UUID_LABEL = "orchestrator.job"
NODE_LABEL = "orchestrator.node"


class Container:
    """Found by its labels once, then addressed by its name: `<instance>-<uuid>-<claim number>`."""

    def __init__(
        self, engine: Engine, claim: Claim, instance: str, configuration: Configuration, node: Node, interrupt: Interrupt
    ) -> None:
        """`interrupt` ends whatever waits for the engine, but the removal at the end."""
        self.name = f"{instance}-{claim.uuid}-{claim.number}"
        self._engine = engine.bound(interrupt)
        self._uninterrupted = engine
        self._labels = {INSTANCE_LABEL: instance, UUID_LABEL: str(claim.uuid)}
        self._configuration = configuration
        self._node = node
        self._adopted = claim.number == 1  # nobody had it before

    def find(self) -> Observation | None:
        """What the engine says of it; None where there is none.

        A container of an earlier claim is renamed first, so that its earlier owner, should it still live,
        gets a 404 for whatever it does; only then is it looked at. One that never started is removed
        (never by force: a start that slipped in before the rename makes the removal fail, and is adopted).
        """
        if not self._adopted:
            adopt(self._engine, self._labels, self.name)
            self._adopted = True
        try:
            return self._engine.inspect(self.name)
        except ContainerNotFound:
            return None

    def spec(self, job: Job) -> RunSpec:
        """How the engine is to make it."""
        command = ("/bin/sh", "-c", job.command) if isinstance(job.command, str) else job.command
        return RunSpec(
            name=self.name,
            image=job.image,
            command=None if command is None else tuple(command),
            environment=job.environment,
            workspace=job.workspace,
            cpu_millis=job.cpu_millis,
            memory_mib=job.memory_mib,
            network=self._node.network_name if job.network == "bridge" else None,
            labels={**self._labels, NODE_LABEL: str(self._node.pk)},
            stop_grace_seconds=math.ceil(self._configuration.shutdown_grace),
            log_limit_bytes=self._configuration.engine_log_limit,
        )

    def remove(self) -> None:
        """Remove it, running or not."""
        self._uninterrupted.remove(self.name, force=True)
