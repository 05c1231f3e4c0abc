"""When a failed step is tried again."""

import pytest
from django.db import OperationalError

from jobs.errors import (
    ContainerConflict,
    ContainerNotFound,
    DiskFull,
    EngineInTrouble,
    EngineRefused,
    EngineUnavailable,
    ImageUnavailable,
    StartRefused,
    TransferFailed,
)
from jobs.running.retries import MAX_UNEXPECTED, Retries, is_temporary
from orchestrator_site.base.db.encryption import Unreadable
from orchestrator_site.base.intervals import RunIntervals

INTERVALS = RunIntervals(retries=(1.0, 10.0, 100.0))


@pytest.mark.parametrize(
    "error",
    [
        EngineUnavailable(),
        EngineInTrouble(),
        ContainerConflict(),
        ContainerNotFound(),
        StartRefused("words", "sentence"),
        DiskFull(),
        OperationalError(),
        Unreadable(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_temporary_errors(error: Exception) -> None:
    assert is_temporary(error)


@pytest.mark.parametrize(
    "error", [EngineRefused(), ImageUnavailable(), TransferFailed(), KeyError()], ids=lambda error: type(error).__name__
)
def test_other_errors(error: Exception) -> None:
    assert not is_temporary(error)


def test_pauses_grow_to_the_last_one_and_start_over_after_a_success() -> None:
    retries = Retries(INTERVALS)

    pauses = [retries.after_temporary() for _ in range(4)]
    retries.reset()
    pauses.append(retries.after_temporary())

    expected = [1.0, 10.0, 100.0, 100.0, 1.0]
    assert all(0.7 * about <= pause <= 1.3 * about for pause, about in zip(pauses, expected, strict=True))


def test_retries_are_exhausted_after_some_unexpected_errors_in_a_row() -> None:
    retries = Retries(INTERVALS)
    for _ in range(MAX_UNEXPECTED - 1):
        retries.after_unexpected()
        retries.after_temporary()
    assert not retries.exhausted()

    retries.after_unexpected()

    assert [retries.exhausted(), retries.exhausted()] == [True, False]
