"""What can go wrong with a job, whose fault it is, and whether trying again can help.

Every error that crosses a module boundary inside `jobs` is one of these. `fault` says who has to act:
the `client` (who described the job), a `peer` (the other end of a URL), the `engine` or the `service`.
`retry` says whether the very same step may succeed later without anybody changing anything.
"""

from typing import ClassVar, Literal

Fault = Literal["client", "peer", "engine", "service"]


class JobError(Exception):
    """Base of all of them. `str(error)` is one sentence that a client may read; it holds no secret."""

    fault: ClassVar[Fault] = "service"
    retry: ClassVar[bool] = False


class EngineUnavailable(JobError):
    """The engine does not answer, or answers that it cannot right now. Says nothing about the job."""

    fault = "engine"
    retry = True


class EngineSilent(EngineUnavailable):
    """The engine takes connections and sends nothing, as one that is frozen does."""


class EngineInTrouble(EngineUnavailable):
    """The engine cannot make or start a container, and its answer shows that the job is not at fault."""


class NetworkMissing(EngineUnavailable):
    """Somebody has removed the network that jobs run on. It can be made anew."""


class EngineRefused(JobError):
    """The engine answered, and the answer is a no that will stay one."""

    fault = "engine"


class ContainerNotFound(JobError):
    """No container has that name (any more)."""

    fault = "engine"


class ContainerConflict(JobError):
    """The container's state does not allow this: it runs where it should not, or the name is taken."""

    fault = "engine"


class PathNotFound(JobError):
    """No such path inside the container."""

    fault = "client"


class ImageUnavailable(JobError):
    """The image can be neither found nor pulled, or may not be used."""

    fault = "client"


class StartFailed(JobError):
    """The engine could not start the process: no such program, not executable, no such user."""

    fault = "client"


class StartRefused(JobError):
    """The engine could not start the process, and one failure does not tell whether the job or the engine is at fault.

    `words` are the engine's own. They may name paths of its host, so they are for operators alone.
    """

    fault = "engine"
    retry = True

    def __init__(self, words: str, sentence: str) -> None:
        super().__init__(sentence)
        self.words = words


class StartLost(JobError):
    """The engine ended in the middle of the start, and cannot tell what became of it: the process may have run, or run still."""

    fault = "engine"


class TransferFailed(JobError):
    """A file could not be brought in or out, and trying again will not change that."""

    fault = "peer"


class DiskFull(JobError):
    """The worker's own disk has no room for a download. Others that are under way will give theirs back."""

    fault = "service"
    retry = True


class Interrupted(JobError):
    """Somebody decided meanwhile that this blocking step should not go on (cancel, time-out, hand-over)."""

    fault = "service"
    retry = True


class OwnershipLost(JobError):
    """The row is not ours any more, or not in a state that allows the change: read it again."""

    fault = "service"


class IdTaken(JobError):
    """A job with this id exists."""

    fault = "client"
