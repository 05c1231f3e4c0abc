"""The errors that cross a module boundary inside `jobs`, and whether the step that raised one is tried again."""

from typing import ClassVar


class JobError(Exception):
    """Base of all of them. `str(error)` is one sentence that a client may read; it holds no secret.

    With `retry` the same step may succeed later although nobody changes anything: a run repeats it after a pause.
    """

    retry: ClassVar[bool] = False


class EngineUnavailable(JobError):
    """The engine does not answer, or answers that it cannot right now. Says nothing about the job."""

    retry = True


class EngineSilent(EngineUnavailable):
    """The engine takes connections and sends nothing, as one that is frozen does."""


class EngineInTrouble(EngineUnavailable):
    """The engine cannot make or start a container, and its answer shows that the job is not at fault."""


class NetworkMissing(EngineUnavailable):
    """Somebody has removed the network that jobs run on. It can be made anew."""


class EngineRefused(JobError):
    """The engine answered, and the answer is a no that will stay one."""


class ContainerNotFound(JobError):
    """No container has that name (any more): it was removed, or its new owner renamed it."""

    retry = True


class ContainerConflict(JobError):
    """The container's state does not allow this: it runs where it should not, or the name is taken.

    An earlier try may have had its effect although its answer was lost.
    """

    retry = True


class PathNotFound(JobError):
    """No such path inside the container."""


class ImageUnavailable(JobError):
    """The image can be neither found nor pulled, or may not be used."""


class StartFailed(JobError):
    """The engine could not start the process: no such program, not executable, no such user."""


class StartRefused(JobError):
    """The engine could not start the process, and one failure does not tell whether the job or the engine is at fault.

    `words` are the engine's own. They may name paths of its host, so they are for operators alone.
    """

    retry = True

    def __init__(self, words: str, sentence: str) -> None:
        super().__init__(sentence)
        self.words = words


class StartLost(JobError):
    """The engine ended in the middle of the start, and cannot tell what became of it: the process may have run, or run still."""


class TransferFailed(JobError):
    """A file could not be brought in or out, and trying again will not change that."""


class DiskFull(JobError):
    """The worker's own disk has no room for a download. Others that are under way will give theirs back."""

    retry = True


class Interrupted(JobError):
    """A cancel, a time-out or a hand-over ended this blocking call: the row says what comes next."""


class OwnershipLost(JobError):
    """The row is not ours any more, or not in a state that allows the change: read it again."""


class IdTaken(JobError):
    """A job with this id exists."""
