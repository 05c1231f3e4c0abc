"""Which job a worker may claim."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import Q
from django.utils import timezone

from jobs import lifecycle
from jobs.lifecycle import Claim
from jobs.models import Job, Node
from jobs.running import claiming
from jobs.running.claiming import startable
from jobs.spec import InputSpec, OutputSpec
from jobs.states import InputType, OutputType, State
from orchestrator_site.base.intervals import ClaimIntervals
from tests.helpers.encryption_keys import LOST, make_secret_job
from tests.helpers.factories import STARTED_AT, claimed, make_job, make_node, make_worker

pytestmark = pytest.mark.django_db(transaction=True)

PASSED_OVER = timedelta(seconds=ClaimIntervals().passed_over)


def reserved(node: Node) -> tuple[int, int]:
    node.refresh_from_db()
    return node.cpu_millis_reserved, node.memory_mib_reserved


def test_the_oldest_job_is_claimed_first() -> None:
    # Given two jobs
    node = make_node()
    first, second = make_job(cpu_millis=500, memory_mib=100), make_job()
    worker = make_worker(node)

    # When a worker claims twice
    claims = [claiming.claim(node.pk, worker), claiming.claim(node.pk, worker)]

    # I expect the oldest first, and both reserved
    assert [claim.uuid for claim in claims if claim] == [first.uuid, second.uuid]
    assert reserved(node) == (1500, 164)
    assert claiming.claim(node.pk, worker) is None


def test_a_job_whose_secrets_cannot_be_decrypted_is_in_nobodys_way(settings: Any) -> None:
    # Given two jobs, of which the oldest has secrets with a key that this process has not
    node = make_node()
    unreadable, other = make_secret_job(settings, LOST), make_job()
    worker = make_worker(node)

    # When a worker claims twice, I expect both, and the unreadable one to be cancelled like any other
    claims = [claiming.claim(node.pk, worker), claiming.claim(node.pk, worker)]
    assert [claim.uuid for claim in claims if claim] == [unreadable.uuid, other.uuid]
    lifecycle.cancel(unreadable.uuid)
    assert Job.objects.get(uuid=unreadable.uuid).status == State.CANCELLED


def test_cpu_is_overcommitted_and_memory_is_not() -> None:
    # Given a node of 1 cpu, overcommitted twice, and 1000 MiB
    node = make_node(cpus=1, overcommit=2, memory_mib=1000)
    worker = make_worker(node)
    for memory in (400, 400, 400):
        make_job(cpu_millis=600, memory_mib=memory)

    # When a worker claims all that fit
    taken = [claiming.claim(node.pk, worker) for _ in range(3)]

    # I expect two: the third has neither the memory nor the cpu
    assert [claim is not None for claim in taken] == [True, True, False]
    assert reserved(node) == (1200, 800)


def test_a_large_job_is_passed_over_for_a_limited_time() -> None:
    # Given a node that is half full, a job that needs all of it, and a younger small job
    node = make_node(cpus=1, overcommit=1, memory_mib=1000)
    worker = make_worker(node)
    make_job(memory_mib=500, cpu_millis=100)
    assert claiming.claim(node.pk, worker)
    large = make_job(memory_mib=1000, cpu_millis=100)
    small = make_job(memory_mib=100, cpu_millis=100)

    # When the large one has been passed over for too long, I expect nothing to be claimed
    Job.objects.filter(uuid=large.uuid).update(created_at=timezone.now() - PASSED_OVER - timedelta(seconds=1))
    assert claiming.claim(node.pk, worker) is None

    # Before that, I expect the small one
    Job.objects.filter(uuid=large.uuid).update(created_at=timezone.now())
    claim = claiming.claim(node.pk, worker)
    assert claim is not None
    assert claim.uuid == small.uuid


def test_a_job_too_large_for_the_node_holds_back_no_other() -> None:
    # Given an old job that only another node could hold
    node = make_node(memory_mib=1000)
    large = make_job(memory_mib=2000)
    Job.objects.filter(uuid=large.uuid).update(created_at=timezone.now() - 2 * PASSED_OVER)
    small = make_job()

    # I expect the younger job to be claimed
    claim = claiming.claim(node.pk, make_worker(node))
    assert claim is not None
    assert claim.uuid == small.uuid


def test_a_reservation_is_released_once() -> None:
    # Given a job that runs
    node = make_node()
    job = make_job()
    claim = claimed(job, node)
    lifecycle.started(claim, STARTED_AT)

    # When it is decided and its exit is committed
    lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=timezone.now())
    assert reserved(node) == (0, 0)
    lifecycle.exited(claim, 0)
    lifecycle.completed(claim)

    # I expect nothing to be reserved
    assert reserved(node) == (0, 0)


def test_an_orphan_is_adopted_before_new_jobs() -> None:
    # Given a job whose owner has released it, and a new job
    node = make_node()
    orphan = make_job()
    claimed(orphan, node)
    Job.objects.filter(uuid=orphan.uuid).update(owner=None)
    make_job()

    # When another worker claims
    before = reserved(node)
    claim = claiming.claim(node.pk, make_worker(node))

    # I expect the orphan with the next claim number, and no second reservation
    assert claim == Claim(orphan.uuid, claim.owner, 2) if claim else False
    assert reserved(node) == before


def test_a_dead_worker_claims_nothing() -> None:
    node = make_node()
    job = make_job()
    worker = make_worker(node)
    node.workers.filter(pk=worker).delete()

    assert claiming.claim(node.pk, worker) is None
    job.refresh_from_db()
    assert (job.owner_id, job.node_id) == (None, None)
    assert reserved(node) == (0, 0)


def test_concurrent_claims_never_overlap() -> None:
    # Given a node that can hold 8 of 12 jobs
    node = make_node(cpus=8, overcommit=1)
    for _ in range(12):
        make_job()
    taken: list[Claim] = []
    workers = [make_worker(node) for _ in range(4)]

    def take(worker: object) -> None:
        while claim := claiming.claim(node.pk, worker):  # type: ignore[arg-type]
            taken.append(claim)
        connection.close()

    # When four workers claim as many as they can
    threads = [threading.Thread(target=take, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    # I expect 8 different jobs
    assert len(taken) == len({claim.uuid for claim in taken}) == 8
    assert reserved(node)[0] == 8000


DOWNLOAD = InputSpec(id="in", type=InputType.DOWNLOAD, path="in", url="http://127.0.0.1/in")
UPLOAD = OutputSpec(id="out", type=OutputType.UPLOAD, path="out", url="http://127.0.0.1/out")


@pytest.mark.parametrize(
    ("files", "among"),
    [
        ({"inputs": (DOWNLOAD,)}, startable(downloads=False, uploads=True)),
        ({"outputs": (UPLOAD,)}, startable(downloads=True, uploads=False)),
    ],
    ids=["downloads", "uploads"],
)
def test_jobs_without_a_transfer_slot_hold_back_no_other(files: dict[str, Any], among: Q) -> None:
    # Given an old job with transfers, and a worker whose slots for these are all in use
    node = make_node()
    old = make_job(**files)
    Job.objects.filter(uuid=old.uuid).update(created_at=timezone.now() - 2 * PASSED_OVER)
    worker = make_worker(node)

    # I expect it to claim a younger job instead, and the old one when it has free slots
    assert not claiming.has_work(node.pk, among)
    young = make_job()
    assert claiming.has_work(node.pk, among)
    claims = [claiming.claim(node.pk, worker, among), claiming.claim(node.pk, worker, among), claiming.claim(node.pk, worker)]
    assert [claim and claim.uuid for claim in claims] == [young.uuid, None, old.uuid]


@pytest.mark.parametrize("status", [State.RUNNING, State.COMPLETED, State.CANCELLED])
def test_a_started_job_is_adopted_without_a_transfer_slot(status: State) -> None:
    # Given a job with transfers that has lost its owner
    node = make_node()
    orphan = make_job(inputs=(DOWNLOAD,), outputs=(UPLOAD,))
    claimed(orphan, node)
    Job.objects.filter(uuid=orphan.uuid).update(owner=None, status=status)

    # I expect any worker to adopt it
    claim = claiming.claim(node.pk, make_worker(node), startable(downloads=False, uploads=False))
    assert claim is not None
    assert claim.uuid == orphan.uuid
