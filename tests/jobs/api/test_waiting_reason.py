"""What an accepted job waits for."""

from datetime import timedelta

import pytest
from django.utils import timezone

from jobs.api.waiting_reason import waiting_for
from jobs.models import Node
from jobs.running import claiming
from tests.helpers.factories import claimed, make_job, make_node, make_worker

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"cpu_millis": 64_000}, "no node with 64 cpus; the largest has 2"),
        ({"memory_mib": 65_536}, "no node with 65536 MiB of memory; the largest has 4096 MiB"),
    ],
)
def test_a_job_too_large_for_every_node_waits(values: dict[str, int], sentence: str) -> None:
    # Given
    node = make_node(cpus=2)
    job = make_job(**values)

    # When
    claim = claiming.claim(node.pk, make_worker(node))

    # I expect
    assert claim is None
    assert waiting_for(job) == sentence


def test_a_job_waits_for_the_jobs_ahead() -> None:
    make_node()
    jobs = [make_job() for _ in range(3)]

    assert [waiting_for(job) for job in jobs] == ["free capacity on a node", "1 job ahead", "2 jobs ahead"]


def test_a_job_waits_for_a_worker() -> None:
    assert waiting_for(make_job()) == "no node has a living worker"


def test_a_job_waits_for_an_engine_to_answer() -> None:
    # Given a job that a worker prepares, and one that waits
    node = make_node()
    mine, waiting = make_job(), make_job()
    claimed(mine, node)
    mine.refresh_from_db()
    assert waiting_for(mine) == "creating the container"

    # When the node's heartbeat stops although its worker is alive
    Node.objects.update(seen_at=timezone.now() - timedelta(seconds=31))

    # I expect
    assert waiting_for(mine) == "its node's engine to respond"
    assert waiting_for(waiting) == "a node's engine to respond"
