"""Faults that tests inject into the fake engine."""

import threading

import pytest

from jobs.errors import EngineUnavailable
from jobs.interrupt import Interrupt
from tests.helpers.engines import FakeBench, shell

pytestmark = pytest.mark.stateless


def test_the_fake_fails_before_or_after_the_effect(fake_bench: FakeBench) -> None:
    engine, name = fake_bench.engine, fake_bench.created()
    engine.fail_next("start", EngineUnavailable("lost"))
    engine.fail_next("start", EngineUnavailable("lost"), after=True)

    with pytest.raises(EngineUnavailable):
        engine.start(name)
    assert engine.inspect(name).phase == "created"
    with pytest.raises(EngineUnavailable):
        engine.start(name)
    assert engine.inspect(name).phase != "created"


def test_an_unavailable_fake_ends_blocked_calls(fake_bench: FakeBench) -> None:
    engine, name = fake_bench.engine, fake_bench.started(shell("sleep 60"))
    leaving = threading.Timer(0.2, lambda: setattr(engine, "unavailable", True))
    leaving.start()

    with pytest.raises(EngineUnavailable):
        engine.wait(name, Interrupt())

    with pytest.raises(EngineUnavailable):
        engine.info()
    engine.unavailable = False
    assert engine.inspect(name).phase == "running"
