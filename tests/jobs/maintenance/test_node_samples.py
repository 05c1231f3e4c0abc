"""Samples of what nodes have reserved: one per minute and healthy node, by the database's clock."""

from datetime import timedelta

import pytest
from django.db.models import F

from jobs.maintenance import node_samples
from jobs.models import Node, NodeSample
from orchestrator_site.base.db.statements import execute_together
from orchestrator_site.base.intervals import AdminIntervals, RelayIntervals, WorkerIntervals
from tests.helpers.factories import make_node, make_node_sample, minute

pytestmark = pytest.mark.django_db


def test_a_healthy_node_has_a_sample() -> None:
    # Given two nodes, of which one has been silent for too long
    make_node("n1", cpus=2, overcommit=4, memory_mib=4096)
    silent = make_node("n2")
    Node.objects.update(cpu_millis_reserved=1500, memory_mib_reserved=512)
    silence = timedelta(seconds=WorkerIntervals().healthy_node + 1)
    Node.objects.filter(pk=silent.pk).update(seen_at=F("seen_at") - silence)

    # When a sample is taken, I expect one of the other
    earliest = minute()
    execute_together([node_samples.taking()])
    sample = NodeSample.objects.select_related("node").get()
    assert earliest <= sample.minute <= minute()
    assert (sample.node.name, sample.cpu_millis_total, sample.cpu_millis_reserved) == ("n1", 8000, 1500)
    assert (sample.memory_mib, sample.memory_mib_reserved) == (4096, 512)


def test_a_minute_has_one_sample_however_many_relays_take_it() -> None:
    # Given a node with a sample of this minute, and of the next in case that one begins
    node = make_node()
    NodeSample.objects.bulk_create(make_node_sample(node, ago, cores=1, gib=1) for ago in (0, -1))

    # When another relay takes one, I expect nothing to change
    execute_together([node_samples.taking()])
    assert list(NodeSample.objects.values_list("cpu_millis_reserved", flat=True)) == [1000, 1000]


def test_samples_are_kept_for_longer_than_charts_show_them() -> None:
    node = make_node()
    kept = int(RelayIntervals().samples_kept) // 60
    NodeSample.objects.bulk_create(make_node_sample(node, ago, cores=1, gib=1) for ago in (0, kept - 1, kept + 1))
    assert node_samples.old().delete()[0] == 1
    assert NodeSample.objects.count() == 2
    assert RelayIntervals().samples_kept > AdminIntervals().charts_show
