"""The errors that cross a module boundary inside `jobs`, and whether the step that raised one is tried again."""

from enum import StrEnum
from typing import ClassVar


class ErrorCode(StrEnum):
    """The code of a failure, for programs: `error.code` in the data of an event (docs/usage.md)."""

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
    """Base class of these errors. `str(error)` is one sentence without secrets, which a client may read.

    If `retry` is true, the same step may succeed later without any change: a run repeats it after a pause.
    """

    retry: ClassVar[bool] = False


class EngineUnavailable(JobError):
    """The engine does not answer, or cannot do this right now. The job is not at fault."""

    retry = True


class EngineSilent(EngineUnavailable):
    """The engine accepts connections but does not answer, as a frozen one does."""


class Unmeasurable(EngineUnavailable):
    """It cannot be found out what a container has written, and its files are the reason: how many or how deep they are, say."""


class EngineInTrouble(EngineUnavailable):
    """The engine cannot create or start a container, and its answer shows that the job is not at fault."""


class NetworkMissing(EngineUnavailable):
    """The network that jobs run on was removed. It can be created again."""


class SandboxRefused(EngineUnavailable):
    """A container cannot be started in its sandbox: the sandbox has ended or was removed, say. It may start without one."""


class EngineRefused(JobError):
    """The engine refuses this, and would refuse it again."""


class ContainerNotFound(JobError):
    """No container has this name: it was removed, or a new owner renamed it."""

    retry = True


class ContainerConflict(JobError):
    """The container's state does not allow this: it is running but should not be, or the name is taken.

    An earlier try may have succeeded although its answer was lost.
    """

    retry = True


class PathNotFound(JobError):
    """The container has no such path."""


class ImageUnavailable(JobError):
    """The image can be neither found nor pulled, or is not allowed."""


class StartFailed(JobError):
    """The engine could not start the process, and the job is at fault: its program or user does not exist, for example."""


class StartRefused(JobError):
    """The engine could not start the process, and the job or the engine may be at fault.

    `words` is the engine's own message. It may name paths of the engine's host, so only operators may see it.
    """

    retry = True

    def __init__(self, words: str, sentence: str) -> None:
        super().__init__(sentence)
        self.words = words


class StartLost(JobError):
    """The engine was restarted in the middle of the start, say. The process may have run, or may still be running."""


class TransferFailed(JobError):
    """An input or output failed for good. `code` names the failure in its event."""

    code: ClassVar[ErrorCode]


class WriteFailed(TransferFailed):
    """The file cannot be put into the container."""

    code = ErrorCode.ARTIFACT_WRITE_FAILED


class DownloadFailed(TransferFailed):
    """The file could not be downloaded completely."""

    code = ErrorCode.DOWNLOAD_FAILED


class DownloadRefused(TransferFailed):
    """The server of a download answered with an error status."""

    code = ErrorCode.DOWNLOAD_HTTP_ERROR


class OutputNotFound(TransferFailed):
    """There is no file at the path of the output."""

    code = ErrorCode.ARTIFACT_NOT_FOUND


class ReadFailed(TransferFailed):
    """What is at the path of the output cannot be sent: it is not a regular file, for example, or too large."""

    code = ErrorCode.ARTIFACT_READ_FAILED


class UploadFailed(TransferFailed):
    """The file could not be sent to its URL."""

    code = ErrorCode.UPLOAD_FAILED


class DiskFull(JobError):
    """The disk of the worker is too full for a download. Space is freed when other downloads end."""

    retry = True


class Interrupted(JobError):
    """A cancel, a time-out or a hand-over interrupted a blocking call. Read the row again to see which."""


class OwnershipLost(JobError):
    """The job has another owner now, or is in a state that does not allow the change. Read the row again."""


class TooManyUndecided(JobError):
    """The namespace has as many undecided jobs as it may have."""

    fault = "client"


class IdTaken(JobError):
    """A job with this id already exists."""
