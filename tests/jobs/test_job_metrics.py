"""Jobs are counted and measured when their changes are committed."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction

from jobs import lifecycle, services
from jobs.engine.protocol import Usage
from jobs.errors import OwnershipLost
from jobs.models import Job, Node
from jobs.states import Reason, State
from orchestrator_site.base.measurements.image_names import ImageNames
from orchestrator_site.base.measurements.metrics import (
    JOB_CPU,
    JOB_DURATION,
    JOB_ERRORS,
    JOB_PEAK_MEMORY,
    JOB_QUEUE,
    JOBS,
    REASONS,
)
from orchestrator_site.base.measurements.process_counts import counts
from tests.helpers.factories import STARTED_AT, claimed, make_job

pytestmark = pytest.mark.django_db(transaction=True)

IMAGE = "alpine:latest"
ENDED_AT = STARTED_AT + timedelta(seconds=2)


@pytest.fixture(autouse=True)
def no_other_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the images of other tests: only the first hundred have series of their own."""
    monkeypatch.setattr(counts, "images", ImageNames())


class Growth:
    """How much a count has grown since this object was made."""

    def __init__(self, count: Callable[[], float]) -> None:
        self._count = count
        self._before = count()

    def __eq__(self, other: object) -> bool:
        return bool(self._count() - self._before == pytest.approx(other))  # other tests may have counted fractions

    def __repr__(self) -> str:
        return str(self._count() - self._before)

    __hash__ = None  # type: ignore[assignment]


def test_all_reasons_are_shown_before_they_occur() -> None:
    assert set(REASONS) == set(Reason.values)


def test_a_job_that_completes() -> None:
    # Given
    accepted = Growth(lambda: JOBS.value(IMAGE))
    waited = Growth(JOB_QUEUE.count)
    succeeded = Growth(lambda: JOB_DURATION.count(IMAGE, "true"))
    errors = Growth(lambda: sum(JOB_ERRORS.value(reason) for reason in REASONS))

    # When
    claim = claimed(make_job(image=IMAGE))
    lifecycle.started(claim, STARTED_AT)
    assert succeeded == 0
    lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=ENDED_AT)
    lifecycle.exited(claim, 0)
    lifecycle.completed(claim)

    # I expect
    assert (accepted, waited, succeeded, errors) == (1, 1, 1, 0)


def test_a_job_that_fails_while_it_runs() -> None:
    failed = Growth(lambda: JOB_DURATION.count(IMAGE, "false"))
    errors = Growth(lambda: JOB_ERRORS.value("exit_code"))

    claim = claimed(make_job(image=IMAGE))
    lifecycle.started(claim, STARTED_AT)
    lifecycle.decide(claim, State.FAILED, Reason.EXIT_CODE, "exit code 3", exit_code=3, ended=ENDED_AT)

    assert (failed, errors) == (1, 1)


def test_a_job_that_never_runs_has_no_duration() -> None:
    durations = Growth(lambda: JOB_DURATION.count(IMAGE, "false"))
    errors = Growth(lambda: JOB_ERRORS.value("cancelled"))

    job = make_job(image=IMAGE)
    services.cancel(job.id)
    services.cancel(job.id)

    assert (durations, errors) == (0, 1)


@pytest.mark.parametrize("end", ["its node is lost", "its workers keep dying"])
def test_a_job_whose_owner_does_not_decide_it(end: str) -> None:
    errors = Growth(lambda: JOB_ERRORS.value("engine_lost"))
    claim = claimed(make_job(image=IMAGE))
    lifecycle.started(claim, datetime.now(UTC))

    if end == "its node is lost":
        Job.objects.update(owner=None)
        lifecycle.node_lost(claim.uuid, Node.objects.get())
    else:
        lifecycle.give_up(claim, "it kills its workers")

    assert errors == 1


MIB = 1024**2
NOTHING, ALL, ONLY_CPU = None, Usage(1.5, 16 * MIB), Usage(1.5, None)


@pytest.mark.parametrize(
    ("at_decision", "at_exit", "cpu", "peaks"),
    [(ALL, ALL, 1.5, 1), (NOTHING, ALL, 1.5, 1), (ALL, NOTHING, 1.5, 1), (ONLY_CPU, NOTHING, 1.5, 0), (NOTHING, NOTHING, 0, 0)],
)
def test_what_a_job_has_used_is_measured_once(at_decision: Usage | None, at_exit: Usage | None, cpu: float, peaks: int) -> None:
    # Given a job that has a quarter of its memory at most
    cpu_time, measured = Growth(lambda: JOB_CPU.value(IMAGE)), Growth(lambda: JOB_PEAK_MEMORY.count(IMAGE))
    ratios = Growth(lambda: JOB_PEAK_MEMORY.sum(IMAGE))
    claim = claimed(make_job(image=IMAGE, memory_mib=64))
    lifecycle.started(claim, STARTED_AT)

    # When it is decided and has exited; its usage may be known at either
    lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=ENDED_AT, usage=at_decision)
    assert (cpu_time, measured) == (0, 0)
    lifecycle.exited(claim, 0, at_exit)
    lifecycle.completed(claim)

    # I expect
    assert (cpu_time, measured, ratios) == (cpu, peaks, peaks * 0.25)


def test_what_a_job_has_used_is_measured_if_its_container_is_lost_before_its_exit() -> None:
    cpu_time = Growth(lambda: JOB_CPU.value(IMAGE))
    claim = claimed(make_job(image=IMAGE))
    lifecycle.started(claim, STARTED_AT)
    lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=ENDED_AT, usage=ALL)

    lifecycle.conclude(claim)

    assert cpu_time == 1.5


def test_what_is_rolled_back_is_not_counted() -> None:
    # Given a job that is cancelled, in a transaction that is rolled back
    errors = Growth(lambda: JOB_ERRORS.value("cancelled"))
    job = make_job(image=IMAGE)

    with transaction.atomic():
        lifecycle.cancel(job.uuid)
        transaction.set_rollback(True)

    assert errors == 0


def test_a_refused_change_is_not_counted() -> None:
    errors = Growth(lambda: JOB_ERRORS.value("timeout"))
    claim = claimed(make_job(image=IMAGE))
    Job.objects.update(owner=None)

    with pytest.raises(OwnershipLost):
        lifecycle.decide(claim, State.FAILED, Reason.TIMEOUT)

    assert errors == 0
