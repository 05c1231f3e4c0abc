"""The page of a node."""

import pytest
from django.test import Client

from jobs.models import Node
from tests.helpers.factories import make_cluster, make_node

pytestmark = pytest.mark.django_db


def page(client: Client, node: Node) -> str:
    return client.get(f"/admin/jobs/node/{node.pk}/change/").content.decode()


def test_it_says_what_an_engine_has(admin_client: Client) -> None:
    found = page(admin_client, make_node(cpus=2, overcommit=4, memory_mib=4096))
    for text in ("container engine", "0 of 8 cores", "0 of 4 GiB", "2 cores and 4 GiB"):
        assert text in found


def test_it_says_what_a_cluster_and_its_largest_host_have(admin_client: Client) -> None:
    found = page(admin_client, make_cluster(largest_cpus=2, largest_memory_mib=4096))
    for text in ("cluster: it places jobs itself", "0 of 6 cores", "0 of 12 GiB", "2 cores and 4 GiB"):
        assert text in found


def test_it_says_what_is_reserved_in_a_cluster_whose_nodes_may_not_be_seen(admin_client: Client) -> None:
    node = make_cluster()
    Node.objects.filter(pk=node.pk).update(cpu_millis_total=0, memory_mib=0, cpu_millis_reserved=1500, memory_mib_reserved=512)

    found = page(admin_client, node)

    assert "1.5 cores" in found
    assert "0.5 GiB" in found
    assert "of 0" not in found
