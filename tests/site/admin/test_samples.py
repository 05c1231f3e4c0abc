"""The charts of what the relays measure: open breakers, and what nodes have reserved."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from callbacks.models import BreakerSample
from jobs.models import Node, NodeSample
from orchestrator_site.admin.start_page import charts, samples, views
from orchestrator_site.admin.start_page.charts import Chart
from orchestrator_site.admin.start_page.samples import CAPACITY, OPEN, OTHERS
from orchestrator_site.processes import relay
from tests.helpers.factories import make_node, make_node_sample, minute

pytestmark = pytest.mark.django_db

SLOT = 10  # minutes


@pytest.fixture(autouse=True)
def no_new_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock of this process at a time that is not before the database's."""
    now = timezone.now() + timedelta(minutes=1)
    monkeypatch.setattr(timezone, "now", lambda: now)


def breakers(*counts: int) -> None:
    """Make the samples of the last minutes, the newest first."""
    BreakerSample.objects.bulk_create(BreakerSample(minute=minute(ago), open_breakers=n) for ago, n in enumerate(counts))


def chart(title: str) -> Chart:
    return next(chart for chart in charts.charts() if chart.title.startswith(title))


def text(found: Chart) -> str:
    """Return what the last bar says."""
    return found.bars[-1].title.partition(": ")[2]


def test_charts_of_an_installation_that_is_new() -> None:
    # I expect them to say that nothing was measured yet
    titles = ("CPU reserved", "Memory reserved", "Open breakers")
    assert [chart(title).empty for title in titles] == ["Not measured yet."] * 3
    assert {bar.title.partition(": ")[2] for bar in chart("CPU").bars} == {"not measured"}

    # When the relay has measured, I expect that there was nothing
    relay.take_samples()
    assert [chart(title).empty for title in titles] == ["No node was healthy."] * 2 + ["None was open."]

    # and of a healthy node its capacity, although nothing is reserved
    BreakerSample.objects.all().delete()
    make_node("n1", cpus=2, memory_mib=3072)
    relay.take_samples()
    found = chart("CPU reserved")
    assert (found.empty, found.top) == ("", "8 cores")
    assert (found.bars[-1].rectangles, found.bars[-1].limit) == ([], 0)
    assert [bar.limit for bar in found.bars[:-2]] == [None] * 34
    assert text(chart("Memory")) == "0 GiB on n1, 3 GiB of capacity"


def test_a_bar_shows_the_most_breakers_at_once() -> None:
    breakers(*[0, 3, 1] + [0] * 27)
    found = samples.read().breakers
    assert [slot.values[OPEN] for slot in found.slots if slot.measured] == [0, 0, 3]
    assert text(chart("Open breakers")) == "3 open"


def test_a_node_that_is_gone_has_neither_reserved_nor_capacity() -> None:
    # Given two nodes with 8 cores and 4 GiB each, of which one went away five minutes ago, when samples were missing, too
    n1, n2 = make_node("n1"), make_node("n2")
    breakers(*[0] * 5)
    BreakerSample.objects.filter(minute=minute(2)).delete()
    taken = [make_node_sample(n1, ago, cores=4, gib=1) for ago in (0, 1, 3, 4)]
    NodeSample.objects.bulk_create([*taken, make_node_sample(n2, 3, cores=2, gib=2), make_node_sample(n2, 4, cores=2, gib=2)])

    # I expect averages of the four minutes that have samples
    found = samples.read()
    assert found.cpu.slots[-1].values == {str(n1.pk): 4, str(n2.pk): 1, CAPACITY: 12}
    assert found.memory.slots[-1].values == {str(n1.pk): 1, str(n2.pk): 1, CAPACITY: 6}
    assert (found.nodes, found.others) == ({str(n1.pk): "n1", str(n2.pk): "n2"}, 0)

    # and a bar whose height is a part of the capacity
    bar = chart("CPU reserved").bars[-1]
    assert [(part.y, part.height, part.color) for part in bar.rectangles] == [
        (pytest.approx(66.67), pytest.approx(33.33), "chart-node-1"),
        (pytest.approx(58.33), pytest.approx(8.33), "chart-node-2"),
    ]
    assert bar.limit == 0
    assert chart("CPU reserved").summary.endswith("UTC: 4 cores on n1, 1 core on n2, 12 cores of capacity")


def test_the_limit_is_drawn_where_it_was_at_that_time() -> None:
    # Given a node that has lost half of its cores, and a job that still has more
    node = make_node(cpus=2)
    breakers(*[0] * SLOT)
    NodeSample.objects.bulk_create(make_node_sample(node, ago, cores=6, gib=0) for ago in range(SLOT))
    NodeSample.objects.update(cpu_millis_total=4000)

    # I expect what is reserved to be the highest
    found = chart("CPU reserved")
    assert found.top == "6 cores"
    assert found.bars[-1].limit == pytest.approx(33.33)


def test_of_many_nodes_the_busiest_are_named() -> None:
    # Given thirty nodes, of which some have reserved cores, some memory, and the others little
    nodes = [make_node(f"node-{number:02}") for number in range(30)]
    breakers(0)
    busy = {3: (5, 0), 9: (0, 3.5), 12: (2, 2), 20: (6, 1), 28: (0, 4)}
    amounts = [busy.get(number, (0.5, 0.5)) for number in range(30)]
    rows = [make_node_sample(node, 0, cores=cores, gib=gib) for node, (cores, gib) in zip(nodes, amounts, strict=True)]
    NodeSample.objects.bulk_create(rows)

    # I expect these to have parts of their own, by name, and the others one together
    found = samples.read()
    assert list(found.nodes.values()) == ["node-03", "node-09", "node-12", "node-20", "node-28"]
    assert found.others == 25
    assert found.cpu.slots[-1].values[OTHERS] == found.memory.slots[-1].values[OTHERS] == 12.5
    assert found.cpu.slots[-1].values[CAPACITY] == 240
    drawn = chart("Memory reserved")
    assert [part.label for part in drawn.parts] == [*found.nodes.values(), "25 other nodes"]
    assert text(drawn).endswith("4 GiB on node-28, 12.5 GiB on 25 other nodes, 120 GiB of capacity")


def test_samples_take_two_statements_however_many_nodes_there_are(django_assert_num_queries: Any) -> None:
    nodes = [make_node(f"n{number}") for number in range(10)]
    breakers(0)
    NodeSample.objects.bulk_create(make_node_sample(node, 0, cores=1, gib=1) for node in nodes)
    with django_assert_num_queries(2):
        samples.read()


def test_the_page_has_the_charts(client: Client) -> None:
    # Given a node whose name is hostile
    node = make_node("<script>")
    Node.objects.update(cpu_millis_reserved=2500)
    breakers(2)
    NodeSample.objects.bulk_create([make_node_sample(node, 0, cores=2.5, gib=1)])
    views.drawn.forget()

    # I expect its name as text, the legend and the line
    client.force_login(User.objects.create_superuser("olga"))
    page = client.get("/admin/charts/").content.decode()
    views.drawn.forget()
    for part in ("&lt;script&gt;", "2.5 cores on", "8 cores of capacity", "2 open", 'class="chart-limit" x1="350" x2="360"'):
        assert part in page
    assert "<script>" not in page


@pytest.mark.parametrize(("value", "cores"), [(0, "0 cores"), (1, "1 core"), (0.125, "0.125 cores"), (1234.5, "1,234 cores")])
def test_amounts_are_in_words(value: float, cores: str) -> None:
    assert charts.as_cores(value) == cores
