"""Whether an engine answers, and what its clock says."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from jobs.errors import EngineUnavailable
from jobs.models import Node
from jobs.worker.engine_watch import EngineWatch
from orchestrator_site.base.intervals import EngineIntervals
from tests.helpers.service_log import service_log
from tests.helpers.waiting import wait_for
from tests.jobs.worker.freezable_engine import FreezableEngine

NODE = Node(name="node", network_id="1234")
INTERVALS = EngineIntervals(watch=0.05, watch_retry=0.05, watch_valid=1.0)


@pytest.fixture
def engine() -> Iterator[FreezableEngine]:
    engine = FreezableEngine()
    yield engine
    engine.close()


def test_the_engine_clock_advances_between_answers(engine: FreezableEngine) -> None:
    # Given an engine that is frozen after its first answer
    watch = EngineWatch(engine, NODE, "instance", INTERVALS)
    first = watch.clock()
    engine.freeze()
    watch.start()

    # I expect its time to advance, an hour ahead as it is
    wait_for(lambda: watch.clock() > first, 5)
    engine.thaw()
    assert abs(watch.clock() - engine.info().clock) < timedelta(seconds=10)
    watch.stop()


def test_a_frozen_engine_counts_as_not_answering(engine: FreezableEngine) -> None:
    # Given an engine that answers
    watch = EngineWatch(engine, NODE, "instance", EngineIntervals(watch=0.05, watch_valid=0.2))
    assert watch.answers

    # When it is frozen
    engine.freeze()
    watch.start()

    # I expect its last answer to count for a while only
    wait_for(lambda: not watch.answers, 5)
    watch.stop()


def test_an_unexpected_error_does_not_end_the_watch(engine: FreezableEngine, caplog: pytest.LogCaptureFixture) -> None:
    # Given an engine that gives an invalid answer once
    watch = EngineWatch(engine, NODE, "instance", INTERVALS)
    engine.fail_next("info", KeyError("ID"))

    # When
    with service_log(caplog) as log:
        watch.start()

        # I expect it to be asked again
        wait_for(lambda: log.about("the engine answers again"), 5)
    assert watch.answers
    watch.stop()

    # And the lines to name the node
    assert {line["node"] for line in log.lines} == {"node"}


def test_a_watch_needs_an_engine_that_answers(engine: FreezableEngine) -> None:
    engine.unavailable = True
    with pytest.raises(EngineUnavailable):
        EngineWatch(engine, NODE, "instance", INTERVALS)


def test_the_firewall_rules_of_the_network_are_restored(engine: FreezableEngine) -> None:
    # Given a watch, which has installed the rules before anything else
    watch = EngineWatch(engine, NODE, "instance", INTERVALS)
    assert engine.protected == {NODE.network_id}
    watch.start()

    # When they are removed
    engine.protected.clear()

    # I expect them to be installed again
    wait_for(lambda: engine.protected == {NODE.network_id}, 5, "the rules")
    watch.stop()
