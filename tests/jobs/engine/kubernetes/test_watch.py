"""The two watches of a worker, on an API server that does what the tests tell it to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.engine.kubernetes import KubernetesEngine
from jobs.errors import ContainerNotFound, EngineUnavailable, Interrupted
from jobs.interrupt import Interrupt
from orchestrator_site.base.intervals import EngineIntervals
from tests.helpers.waiting import wait_for
from tests.jobs.engine.kubernetes.scripted_api import END, ENDED, RUNNING, ScriptedApi, engine_of, in_thread, job, pod

pytestmark = pytest.mark.stateless


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    api = ScriptedApi()
    yield api
    api.close()


@pytest.fixture
def engine(api: ScriptedApi, tmp_path: Path) -> Iterator[KubernetesEngine]:
    """An engine that sees one running container, `one`."""
    api.objects = {"jobs": [job("one", 5)], "pods": [pod("one", 6, RUNNING)]}
    with engine_of(api, tmp_path) as engine:
        assert engine.inspect("one").phase == "running"
        yield engine


def test_a_wait_ends_with_the_event_and_asks_nothing(api: ScriptedApi, engine: KubernetesEngine) -> None:
    asked = len(api.requests)
    thread, outcomes = in_thread(engine.wait, "one", Interrupt())

    api.send("pods", "MODIFIED", pod("one", 11, ENDED))

    thread.join(10)
    assert outcomes == [None]
    assert engine.inspect("one").exit_code == 3
    assert len(api.requests) == asked


def test_a_watch_goes_on_where_it_ended(api: ScriptedApi, engine: KubernetesEngine) -> None:
    # Given a watch that the server ends after an event and a bookmark, as it does every few minutes
    api.send("pods", "MODIFIED", pod("one", 11, RUNNING))
    api.events["pods"].put({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "15"}}})
    api.events["pods"].put(END)

    # I expect the next one to begin there, and nothing to be listed again
    wait_for(lambda: len(api.watched_from("pods")) == 2, what="the next watch")
    api.send("pods", "MODIFIED", pod("one", 16, ENDED))
    wait_for(lambda: engine.inspect("one").phase == "ended")
    assert api.watched_from("pods") == ["10", "15"]
    assert api.count("GET", "pods") == 1


@pytest.mark.parametrize("how", ["event", "status"])
def test_everything_is_listed_again_when_the_version_has_expired(api: ScriptedApi, engine: KubernetesEngine, how: str) -> None:
    # Given changes that the server no longer knows: a pod has ended, another one is new, and a Job is gone
    api.send("jobs", "ADDED", job("two", 11))
    wait_for(lambda: _phase(engine, "two") == "starting")
    api.objects = {"jobs": [job("one", 5), job("three", 21)], "pods": [pod("one", 20, ENDED)]}
    api.version = 30
    if how == "event":
        for kind in ("jobs", "pods"):
            api.events[kind].put({"type": "ERROR", "object": {"code": 410, "message": "too old", "metadata": {}}})
    else:
        api.watch_status = 410
        for kind in ("jobs", "pods"):
            api.events[kind].put(END)
        wait_for(lambda: api.count("GET", "jobs") > 1 and api.count("GET", "pods") > 1, what="the lists")
        api.watch_status = 200

    # I expect the engine to know them
    wait_for(lambda: _phase(engine, "one") == "ended" and _phase(engine, "three") == "starting", what="the new state")
    wait_for(lambda: api.watched_from("jobs")[-1] == "30", what="the next watch")
    with pytest.raises(ContainerNotFound):
        engine.inspect("two")


def _phase(engine: KubernetesEngine, name: str) -> str:
    try:
        return engine.inspect(name).phase
    except (ContainerNotFound, EngineUnavailable):
        return ""


def test_nothing_is_said_while_a_watch_is_cut_off(api: ScriptedApi, engine: KubernetesEngine) -> None:
    # Given a call that waits, and an API server that refuses to go on
    thread, outcomes = in_thread(engine.wait, "one", Interrupt())
    api.watch_status = 503
    api.events["pods"].put(END)

    # I expect that call and others to say so, and not that a container is missing
    thread.join(10)
    assert isinstance(outcomes[0], EngineUnavailable)
    for call in (lambda: engine.inspect("one"), lambda: engine.inspect("nothing"), lambda: engine.list({})):
        with pytest.raises(EngineUnavailable, match="cannot be watched"):
            call()

    # And all to go on when it is back
    api.watch_status = 200
    wait_for(lambda: _phase(engine, "one") == "running")


def test_a_silent_server_is_left(api: ScriptedApi, tmp_path: Path) -> None:
    api.objects["jobs"] = [job("one", 5, requested=False)]
    with engine_of(api, tmp_path, EngineIntervals(cluster_watch_silence=0.3)) as engine:
        engine.inspect("one")

        wait_for(lambda: len(api.watched_from("jobs")) > 1, what="another watch")
        wait_for(lambda: _phase(engine, "one") == "created")


def test_an_unreadable_event_lists_everything_again(api: ScriptedApi, engine: KubernetesEngine) -> None:
    api.objects["pods"] = [pod("one", 12, ENDED)]

    api.events["pods"].put({"type": "MODIFIED"})

    wait_for(lambda: _phase(engine, "one") == "ended")


def test_an_interrupt_ends_a_wait(engine: KubernetesEngine) -> None:
    own, bound = Interrupt(), Interrupt()
    first, of_own = in_thread(engine.wait, "one", own)
    second, of_bound = in_thread(engine.bound(bound).wait, "one", Interrupt())

    own.wake()
    bound.wake()

    first.join(10)
    second.join(10)
    assert isinstance(of_own[0], Interrupted)
    assert isinstance(of_bound[0], Interrupted)


# -- what was written here -------------------------------------------------------------------------------


def test_a_late_event_does_not_undo_what_was_written(api: ScriptedApi, engine: KubernetesEngine) -> None:
    # Given a Job that was started here, of which the watch reports an older version afterwards
    api.objects["jobs"].append(job("two", 11, requested=False))
    assert engine.inspect("two").phase == "created"
    api.answers[("PATCH", "/jobs/two")] = (200, job("two", 15))

    engine.start("two")
    api.send("jobs", "ADDED", job("two", 11, requested=False))
    api.send("jobs", "ADDED", job("three", 16))
    wait_for(lambda: _phase(engine, "three"))

    assert engine.inspect("two").phase == "starting"


def test_a_late_event_does_not_bring_back_what_was_removed(api: ScriptedApi, engine: KubernetesEngine) -> None:
    api.answers[("DELETE", "/jobs/one")] = (200, {})
    api.answers[("DELETE", "/pods/one-pod")] = (200, {})
    api.objects["jobs"] = []

    engine.remove("one", force=True)
    api.send("jobs", "MODIFIED", job("one", 12))
    api.send("jobs", "ADDED", job("three", 13))
    wait_for(lambda: _phase(engine, "three"))

    with pytest.raises(ContainerNotFound):
        engine.inspect("one")


def test_a_job_that_the_watch_has_not_reported_yet_is_found(api: ScriptedApi, engine: KubernetesEngine) -> None:
    api.objects["jobs"].append(job("two", 11, requested=False))

    assert engine.inspect("two").phase == "created"
    assert {seen.name for seen in engine.list({})} == {"one", "two"}


def test_a_start_that_another_owner_has_fenced_is_not_found(api: ScriptedApi, engine: KubernetesEngine) -> None:
    # Given a Job that a new owner has renamed, of which this worker does not know yet
    api.send("jobs", "ADDED", job("two", 11, requested=False))
    wait_for(lambda: _phase(engine, "two") == "created")
    api.answers[("PATCH", "/jobs/two")] = (422, {"message": "the test failed"})

    # I expect the API server to decide
    with pytest.raises(ContainerNotFound):
        engine.start("two")
