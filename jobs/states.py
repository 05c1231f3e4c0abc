"""The states of a job and the only transitions between them."""

from typing import Final

from django.db import models


class State(models.TextChoices):
    ACCEPTED = "accepted"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Reason(models.TextChoices):
    """Why a job is decided as it is. A completed job has none."""

    EXIT_CODE = "exit_code"
    OOM = "oom"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    IMAGE_PULL = "image_pull"
    INPUT_FAILED = "input_failed"
    START_FAILED = "start_failed"
    ENGINE_LOST = "engine_lost"


NO_EXIT_CODE: Final = -1  # the process never ran, or its exit code is unknown

TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    State.ACCEPTED: frozenset({State.RUNNING, State.FAILED, State.CANCELLED}),
    State.RUNNING: frozenset({State.COMPLETED, State.FAILED, State.CANCELLED}),
    State.COMPLETED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}

UNDECIDED: Final = frozenset(state for state, following in TRANSITIONS.items() if following)
DECIDED: Final = frozenset(State) - UNDECIDED


def sources(target: State) -> frozenset[State]:
    """The states from which `target` may be reached: the guard of every UPDATE that sets it."""
    return frozenset(state for state, following in TRANSITIONS.items() if target in following)


class TransferStatus(models.TextChoices):
    """Where one input or output stands."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"


class InputType(models.TextChoices):
    FILE = "file"
    DOWNLOAD = "download"


class OutputType(models.TextChoices):
    UPLOAD = "upload"
    EVENT = "event"


class Stream(models.TextChoices):
    """Where a line of a log was printed."""

    STDOUT = "stdout"
    STDERR = "stderr"
