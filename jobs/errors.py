"""The errors that cross a module boundary inside `jobs`, and whether the step that raised one is tried again."""

from enum import StrEnum
from typing import ClassVar


class ErrorCode(StrEnum):
    """What failed, for programs: `error.code` in the data of an event (docs/usage.md)."""

    JOB_OOM = "job_oom"
    JOB_EXIT_NONZERO = "job_exit_nonzero"
    JOB_FAILED = "job_failed"
    ARTIFACT_WRITE_FAILED = "artifact_write_failed"
    DOWNLOAD_HTTP_ERROR = "download_http_error"
    DOWNLOAD_FAILED = "download_failed"
    ARTIFACT_NOT_FOUND = "artifact_not_found"
    ARTIFACT_READ_FAILED = "artifact_read_failed"
    UPLOAD_FAILED = "upload_failed"


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
    """An input or output failed, and trying again will not change that. `code` names the failure in its event."""

    code: ClassVar[ErrorCode]


class WriteFailed(TransferFailed):
    """The file cannot be put into the container."""

    code = ErrorCode.ARTIFACT_WRITE_FAILED


class DownloadFailed(TransferFailed):
    """The file could not be downloaded whole."""

    code = ErrorCode.DOWNLOAD_FAILED


class DownloadRefused(TransferFailed):
    """The server answered with a status that is not the file."""

    code = ErrorCode.DOWNLOAD_HTTP_ERROR


class OutputNotFound(TransferFailed):
    """The job left no file at the output's path."""

    code = ErrorCode.ARTIFACT_NOT_FOUND


class ReadFailed(TransferFailed):
    """There is something at the output's path that cannot be taken out: not a regular file, too large, not UTF-8."""

    code = ErrorCode.ARTIFACT_READ_FAILED


class UploadFailed(TransferFailed):
    """The file could not be sent to its URL."""

    code = ErrorCode.UPLOAD_FAILED


class DiskFull(JobError):
    """The worker's own disk has no room for a download. Others that are under way will give theirs back."""

    retry = True


class Interrupted(JobError):
    """A cancel, a time-out or a hand-over ended this blocking call: the row says what comes next."""


class OwnershipLost(JobError):
    """The row is not ours any more, or not in a state that allows the change: read it again."""


class IdTaken(JobError):
    """A job with this id exists."""
