"""The container of one claim: its name, its description, and the engine's calls for it."""

import math
from collections.abc import Callable
from dataclasses import replace

from jobs.engine.protocol import Engine, FollowedUsage, Observation, RunSpec
from jobs.errors import ContainerNotFound, EngineSilent, JobError, SandboxRefused
from jobs.interrupt import Interrupt
from jobs.lifecycle import Claim
from jobs.models import Job, Node
from jobs.running import job_network
from jobs.running.container_adoption import adopt
from jobs.running.container_labels import INSTANCE_LABEL, NODE_LABEL, SANDBOX_LABEL, UUID_LABEL
from jobs.running.network_sandboxes import Sandbox, Sandboxes


class ClaimedContainer:
    """A container that is found by its labels once, then addressed by its name: `<instance>-<uuid>-<claim number>`."""

    def __init__(
        self,
        engine: Engine,
        claim: Claim,
        node: Node,
        instance: str,
        interrupt: Interrupt,
        sandboxes: Sandboxes,
        *,
        stop_grace: float,
        engine_log_limit: int,
        disk_limit: int,
    ) -> None:
        """Describe it without a call to the engine.

        `interrupt` ends all calls but four: `start`, because newer engines undo a start whose caller is gone, and the next
        owner would run the job twice; and `stop`, `remove` and `withdraw`, which carry out a decision. Their time-outs bound
        these. `stop_grace` is the number of seconds between SIGTERM and SIGKILL, `engine_log_limit` and `disk_limit` are numbers
        of bytes.
        """
        self.name = f"{instance}-{claim.uuid}-{claim.number}"
        self._engine = engine.bound(interrupt)
        self._uninterrupted = engine
        self._interrupt = interrupt
        self._node = node
        self._instance = instance
        self._labels = {INSTANCE_LABEL: instance, UUID_LABEL: str(claim.uuid)}
        self._stop_grace = stop_grace
        self._engine_log_limit = engine_log_limit
        self._disk_limit = disk_limit
        self._sandboxes = sandboxes
        self._sandbox: Sandbox | None = None
        self._may_join = True  # no sandbox was refused
        self._is_adopted = claim.number == 1  # there is no earlier owner
        self._may_exist = not self._is_adopted
        self._start_was_requested = False
        self._followed_usage: FollowedUsage | None = None

    def find(self) -> Observation | None:
        """Return what the engine says about it, or None if there is none.

        The first call adopts the container of an earlier claim.
        """
        if not self._is_adopted:
            adopt(self._engine, self._labels, self.name)
            self._is_adopted = True
        if not self._may_exist:
            return None
        try:
            return self.inspect()
        except ContainerNotFound:
            return None

    def inspect(self) -> Observation:
        """Return what the engine says about it. Raise `ContainerNotFound`.

        If the engine will not know its usage after its end, it is followed from the first look at the running process on.
        """
        seen = self._engine.inspect(self.name)
        if seen.phase == "running" and not seen.keeps_usage and self._followed_usage is None:
            self._followed_usage = self._engine.follow_usage(self.name)
        if seen.phase == "ended" and self._followed_usage is not None:
            self._followed_usage.close()
            return seen if seen.usage else replace(seen, usage=self._followed_usage.latest())
        return seen

    def is_engine_silent(self, seconds: float) -> bool:
        """Return whether the engine sends nothing for `seconds` when it is asked about the container, as a frozen one does."""
        try:
            self._uninterrupted.bound(Interrupt(), seconds).inspect(self.name)
        except EngineSilent:
            return True
        except JobError:  # any other answer is one
            return False
        return False

    def create(self, job: Job) -> None:
        """Create it, in a sandbox if one is free.

        Raise `ImageUnavailable` if the image is not on the engine, and `SandboxRefused` as `start` does.
        """
        if job.network == "bridge" and self._sandbox is None and self._may_join:
            self._sandbox = self._sandboxes.take()
        self._may_exist = True
        self._engine.create(self._spec(job))
        if self._sandbox is not None and self._sandbox.contested:
            self._check_name(self._sandbox)

    def start(self) -> None:
        """Start its process. Its user must have been resolved since `create`.

        After `SandboxRefused` create it again: it then gets a network of its own.
        """
        first, self._start_was_requested = not self._start_was_requested, True
        try:
            self._uninterrupted.start(self.name, first=first)
        except SandboxRefused:
            self._refuse_sandbox()
            raise

    def prepare(self, waiting_for: Callable[[str], None]) -> None:
        """Return when files can be put into it. An engine that schedules may need hours, and says what for."""
        self._engine.prepare(self.name, waiting_for, self._interrupt)

    def wait_until_started(self, waiting_for: Callable[[str], None]) -> None:
        """Return when its process has begun to run. An engine that schedules may need hours, and says what for."""
        self._engine.wait_until_started(self.name, waiting_for, self._interrupt)

    def wait(self) -> None:
        """Return when its process has ended."""
        self._engine.wait(self.name, self._interrupt)

    def stop(self, *, at_once: bool = False) -> None:
        """Ask its process to end, and kill it after the grace, or without one."""
        self._uninterrupted.stop(self.name, 0 if at_once else self._stop_grace)

    def remove(self) -> None:
        """Remove it, running or not."""
        self._uninterrupted.remove(self.name, force=True)
        self.leave()

    def withdraw(self) -> None:
        """Remove it after its start has failed. Raise `ContainerConflict` if its process has run after all, or may have."""
        self._uninterrupted.withdraw(self.name)
        self.leave()

    def leave(self) -> None:
        """Stop following its usage, and give its sandbox back: this owner does not use the container any more."""
        if self._followed_usage is not None:
            self._followed_usage.close()
        self._leave_sandbox()

    def _leave_sandbox(self) -> None:
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            self._sandboxes.give_back(sandbox)

    def _check_name(self, sandbox: Sandbox) -> None:
        """Raise `SandboxRefused` if another worker has renamed the sandbox.

        It may have done so while the engine created this container, and then have found the sandbox free. If it does so later, it
        finds this container.
        """
        if all(one.name != sandbox.name for one in self._engine.list({SANDBOX_LABEL: sandbox.token})):
            self._refuse_sandbox()
            raise SandboxRefused("another worker has adopted the sandbox, too")

    def _refuse_sandbox(self) -> None:
        self._may_join = False
        self._leave_sandbox()

    def renew_network(self) -> None:
        """Create the network of the node's jobs again if it is gone."""
        job_network.renew(self._engine, self._node, self._instance)

    def _spec(self, job: Job) -> RunSpec:
        command = ("/bin/sh", "-c", job.command) if isinstance(job.command, str) else job.command
        # Empty without one, because an image may have this label, too.
        joined = {SANDBOX_LABEL: self._sandbox.token if self._sandbox else ""}
        return RunSpec(
            name=self.name,
            image=job.image,
            command=None if command is None else tuple(command),
            environment=job.environment,
            workspace=job.workspace,
            cpu_millis=job.cpu_millis,
            memory_mib=job.memory_mib,
            network=self._node.network_name if job.network == "bridge" else None,
            labels={**self._labels, NODE_LABEL: str(self._node.pk), **joined},
            stop_grace_seconds=math.ceil(self._stop_grace),
            log_limit_bytes=self._engine_log_limit,
            disk_limit_bytes=self._disk_limit,
            timeout_seconds=job.timeout_seconds,
            has_inputs=job.has_inputs,
            has_outputs=job.has_outputs,
            pull_policy=job.pull_policy,
            sandbox=self._sandbox.name if self._sandbox else None,
        )
