"""What can go wrong for the client, and its exit codes."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of the client's own, as `docker run` and `timeout` have them; any other is the job's."""

    SUCCESS = 0
    TIMED_OUT = 124  # the job, if it has no exit code other than 0
    FAILED = 125  # the client, the service, or a job that has no exit code other than 0
    SIGNAL = 128  # plus the number of the signal that ended the client or made it cancel the job


class ClientError(Exception):
    """The command cannot be carried out; the message is one sentence for people."""


class UsageError(ClientError):
    """The command line is wrong."""


class ServiceAway(ClientError):
    """The service has not answered for too long. `may_be_done` is whether it may have carried out the request."""

    def __init__(self, message: str, *, may_be_done: bool) -> None:
        super().__init__(message)
        self.may_be_done = may_be_done


class ServiceRefused(ClientError):
    """The service answered with an error: its status, and the member that it is about, if it named one."""

    def __init__(self, message: str, status: int, field: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field
