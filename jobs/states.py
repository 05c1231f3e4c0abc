"""The states of a job, the transitions between them, and the states of its inputs and outputs."""

from typing import Final

from django.db import models


class State(models.TextChoices):
    """The status of a job. The last three are final: the job is decided."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Reason(models.TextChoices):
    """Why a job failed or was cancelled. A completed job has no reason."""

    EXIT_CODE = "exit_code", "Exit code"
    OOM = "oom", "Out of memory"
    TIMEOUT = "timeout", "Time-out"
    DISK = "disk", "Disk limit"
    CANCELLED = "cancelled", "Cancelled"
    IMAGE_PULL = "image_pull", "Image not pulled"
    INPUT_FAILED = "input_failed", "Input failed"
    START_FAILED = "start_failed", "Start failed"
    ENGINE_LOST = "engine_lost", "Engine lost"


NO_EXIT_CODE: Final = -1  # the process never ran, or its exit code is unknown

TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    State.ACCEPTED: frozenset(
        {
            State.RUNNING,  # its process was started
            State.FAILED,  # it never ran: no image, an input failed, the engine refused to start it, or its workers kept dying
            State.CANCELLED,  # by a client, before it ran
        }
    ),
    State.RUNNING: frozenset(
        {
            State.COMPLETED,  # its process ended with exit code 0
            State.FAILED,  # another exit code, out of memory, a time-out, or its container or engine went away
            State.CANCELLED,  # by a client; the owner then stops the process
        }
    ),
    # Final: what happens to outputs after the decision does not change it.
    State.COMPLETED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}

UNDECIDED: Final = frozenset(state for state, targets in TRANSITIONS.items() if targets)
DECIDED: Final = frozenset(State) - UNDECIDED


def sources(target: State) -> frozenset[State]:
    """Return the states that may change to `target`: the guard of every UPDATE that sets it."""
    return frozenset(state for state, targets in TRANSITIONS.items() if target in targets)


class TransferStatus(models.TextChoices):
    """The status of one input or output."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"


class InputType(models.TextChoices):
    """Where the content of an input comes from."""

    FILE = "file"
    DOWNLOAD = "download"


class OutputType(models.TextChoices):
    """Where an output is sent: to a URL, or inside its event."""

    UPLOAD = "upload"
    EVENT = "event"


class Stream(models.TextChoices):
    """The stream to which a job printed a line."""

    STDOUT = "stdout"
    STDERR = "stderr"
