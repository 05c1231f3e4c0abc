"""The network sandboxes of a worker: how many it keeps, which it gives to jobs, and what becomes of those of dead workers."""

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from jobs import services
from jobs.engine.protocol import Observation
from jobs.errors import EngineRefused, EngineSilent, EngineUnavailable, SandboxRefused
from jobs.models import Job, Worker
from jobs.running.container_labels import SANDBOX_LABEL, UUID_LABEL
from jobs.states import State
from jobs.worker.sandbox_table import SandboxState
from jobs.worker.supervisor import Supervisor
from tests.fake_engine import FakeEngine
from tests.helpers.engines import Bench
from tests.helpers.factories import make_job
from tests.helpers.service_processes import ROOT
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed, running

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def quick(workers: Workers) -> None:
    workers.set_intervals(sandbox={"retry": 0.01, "retry_max": 0.05})


@pytest.fixture
def no_retries(workers: Workers) -> None:
    workers.set_intervals(sandbox={"retry": 1000.0, "retry_max": 1000.0})


def containers(engine: FakeEngine) -> list[Observation]:
    """Return all containers, of which a test has those of one installation."""
    return engine.list({})


def sandboxes(engine: FakeEngine) -> dict[str, Observation]:
    """Return the sandboxes by their token."""
    found = [one for one in containers(engine) if SANDBOX_LABEL in one.labels and UUID_LABEL not in one.labels]
    return {one.labels[SANDBOX_LABEL]: one for one in found}


def joined(engine: FakeEngine, job: Job) -> str | None:
    """Return the token of the sandbox that the job's container has joined."""
    (container,) = engine.list({UUID_LABEL: str(job.pk)})
    return container.labels.get(SANDBOX_LABEL) or None


def free(supervisor: Supervisor) -> list[str]:
    return [one.token for one in supervisor.sandboxes._in(SandboxState.FREE)]


def wait_for_free(supervisor: Supervisor, count: int) -> list[str]:
    """Wait until the worker has this number of free sandboxes and nothing to do, and return their tokens."""
    pool = supervisor.sandboxes

    def settled() -> bool:
        with pool._changed:
            idle = not (pool._in(SandboxState.UNCHECKED) or pool._in(SandboxState.UNWANTED) or pool._found or pool._look_due)
            return idle and len(pool._in(SandboxState.FREE)) == count

    wait_for(settled, 20, f"{count} free sandboxes")
    return free(supervisor)


def sleeping(workers: Workers, supervisor: Supervisor, **values: Any) -> Job:
    """Start a job that runs until it is cancelled."""
    job = make_job(command="exec sleep 60", **values)
    wait_for(lambda: supervisor._engine_watch.answers, 20, "the engine to be watched")
    workers.run(supervisor)
    running(job)
    return job


def cancel(job: Job) -> None:
    services.cancel(job.id)
    completed(job)


def use(supervisor: Supervisor, *, changed: bool = False) -> str:
    """Take a sandbox and give it back, as a job does that may have changed it, and return its token."""
    sandbox = supervisor.sandboxes.take()
    assert sandbox is not None
    if changed:
        engine = supervisor.sandboxes._engine
        assert isinstance(engine, FakeEngine)
        engine.changed_sandboxes.add(sandbox.name)
    supervisor.sandboxes.give_back(sandbox)
    return sandbox.token


def count_calls(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, method: str) -> list[str]:
    """Return a list to which each call of the method from now on adds the name of the sandbox."""
    original, names = getattr(engine, method), []

    def call(name: str, *args: Any, **kwargs: Any) -> Any:
        names.append(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(engine, method, call)
    return names


def fail_calls(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, method: str, token: str) -> None:
    """Let all calls of the method fail for the sandbox with this token."""
    original = getattr(engine, method)

    def call(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.endswith(token):
            raise EngineUnavailable("not this one")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(engine, method, call)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "jobs.worker.sandbox_pool"]


# -- a job ----------------------------------------------------------------------------------------


def test_a_job_joins_a_sandbox_and_gives_it_back(engine: FakeEngine, workers: Workers) -> None:
    # Given a worker with one sandbox
    supervisor = workers.another(sandboxes=1)
    (token,) = wait_for_free(supervisor, 1)

    # When a job runs, I expect it to have the sandbox for itself
    job = sleeping(workers, supervisor)
    assert joined(engine, job) == token
    assert free(supervisor) == []

    # And the next job to get the same one
    cancel(job)
    assert wait_for_free(supervisor, 1) == [token]
    again = sleeping(workers, supervisor)
    assert joined(engine, again) == token
    cancel(again)


def test_only_sandboxes_have_the_label_by_which_operators_remove_them(engine: FakeEngine, workers: Workers) -> None:
    # Given a job in a sandbox
    supervisor = workers.another(sandboxes=1)
    wait_for_free(supervisor, 1)
    job = sleeping(workers, supervisor)
    (sandbox,) = sandboxes(engine).values()

    # I expect the label of the operations guide to find the sandbox only
    (label,) = re.findall(r"with the label `([^`]+)`, which only sandboxes", (ROOT / "docs" / "operations.md").read_text())
    assert [one.name for one in containers(engine) if label in one.labels] == [sandbox.name]
    cancel(job)


def test_two_jobs_never_share_a_sandbox(engine: FakeEngine, workers: Workers) -> None:
    supervisor = workers.another(sandboxes=1)
    (token,) = wait_for_free(supervisor, 1)

    first, second = sleeping(workers, supervisor), sleeping(workers, supervisor)

    assert [joined(engine, first), joined(engine, second)] == [token, None]
    cancel(first)
    cancel(second)


def test_a_job_waits_for_a_sandbox_that_was_just_given_back(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a sandbox that a job has given back and that is being checked
    workers.set_intervals(sandbox={"wait": 60.0, "turnover": 60.0})
    pool = workers.another(sandboxes=1).sandboxes
    wait_for(lambda: pool._in(SandboxState.FREE), 20, "a free sandbox")
    is_clean, checking, go_on = engine.is_sandbox_clean, threading.Event(), threading.Event()

    def slow(name: str) -> bool:
        checking.set()
        assert go_on.wait(20)
        return is_clean(name)

    monkeypatch.setattr(engine, "is_sandbox_clean", slow)
    first = pool.take()
    assert first is not None
    pool.give_back(first)
    assert checking.wait(20)

    # When the next job takes one, I expect it to get the same when it is checked
    with ThreadPoolExecutor() as threads:
        second = threads.submit(pool.take)
        go_on.set()
        assert second.result(20) == first


def test_a_stop_does_not_wait_for_a_job_that_waits_for_a_sandbox(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job that waits for a sandbox whose check takes long
    workers.set_intervals(sandbox={"wait": 1000.0, "turnover": 1000.0}, worker={"hand_over": 1000.0})
    supervisor = workers.another(sandboxes=1)
    pool, go_on = supervisor.sandboxes, threading.Event()
    wait_for(lambda: pool._in(SandboxState.FREE), 20, "a free sandbox")
    monkeypatch.setattr(engine, "is_sandbox_clean", lambda _: go_on.wait(60))
    sandbox = pool.take()
    assert sandbox is not None
    pool.give_back(sandbox)
    make_job()
    wait_for(lambda: supervisor._engine_watch.answers, 20, "the engine to be watched")
    workers.run(supervisor)
    wait_for(supervisor._runs.snapshot, 20, "the run")

    # When the worker is stopped, I expect it to end nevertheless
    stop = threading.Thread(target=supervisor.stop, daemon=True)
    stop.start()
    stop.join(20)
    go_on.set()
    assert not stop.is_alive()


def test_no_job_waits_while_no_sandbox_is_given_back(engine: FakeEngine, workers: Workers) -> None:
    # Given a sandbox in use, and none that was given back
    workers.set_intervals(sandbox={"wait": 1000.0, "turnover": 1000.0})
    pool = workers.another(sandboxes=1).sandboxes
    wait_for(lambda: pool._in(SandboxState.FREE), 20, "a free sandbox")
    assert pool.take() is not None

    # I expect the next job to get none at once
    assert pool.take() is None


def test_a_check_does_not_wait_for_a_new_sandbox(engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an engine that takes long to make the second of two sandboxes
    pool = workers.another(sandboxes=None).sandboxes
    wait_for(lambda: pool._in(SandboxState.FREE), 20, "a free sandbox")
    making, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        making.set()
        assert go_on.wait(20)

    monkeypatch.setattr(engine, "create_sandbox", slow)
    sandbox = pool.take()
    assert sandbox is not None
    assert pool.take() is None
    assert making.wait(20)

    # When the first one is given back, I expect it to be free before that
    pool.give_back(sandbox)
    wait_for(lambda: pool._in(SandboxState.FREE) == [sandbox], 10, "it to be free")
    go_on.set()


def test_a_job_without_a_network_needs_no_sandbox(engine: FakeEngine, workers: Workers) -> None:
    supervisor = workers.another(sandboxes=1)
    wait_for_free(supervisor, 1)

    job = sleeping(workers, supervisor, network="none")

    assert joined(engine, job) is None
    assert len(free(supervisor)) == 1
    cancel(job)


@pytest.mark.parametrize("how", ["stop", "remove"])
def test_a_job_whose_sandbox_is_gone_starts_without(engine: FakeEngine, workers: Workers, how: str) -> None:
    # Given a free sandbox that has ended, and the worker has not noticed
    supervisor = workers.another(sandboxes=1)
    (token,) = wait_for_free(supervisor, 1)
    name = sandboxes(engine)[token].name
    engine.stop(name, 0) if how == "stop" else engine.remove(name, force=True)

    # When a job starts, I expect it to run at its first try, on the network itself
    job = sleeping(workers, supervisor)
    assert joined(engine, job) is None
    assert Job.objects.get().status == State.RUNNING

    # And the sandbox to be replaced
    (other,) = wait_for_free(supervisor, 1)
    assert other != token
    assert list(sandboxes(engine)) == [other]
    cancel(job)


def test_all_sandboxes_are_checked_after_one_was_refused(engine: FakeEngine, workers: Workers) -> None:
    # Given an engine that was restarted
    supervisor = workers.another(sandboxes=3)
    before = set(wait_for_free(supervisor, 3))
    engine.restart()

    # When a job starts
    job = sleeping(workers, supervisor)

    # I expect all sandboxes to be replaced
    assert not before & set(wait_for_free(supervisor, 3))
    assert sandboxes(engine).keys() == set(free(supervisor))
    cancel(job)


def test_a_sandbox_that_a_job_changed_is_replaced(engine: FakeEngine, workers: Workers) -> None:
    supervisor = workers.another(sandboxes=1)
    (token,) = wait_for_free(supervisor, 1)
    job = sleeping(workers, supervisor)

    engine.changed_sandboxes.add(sandboxes(engine)[token].name)
    cancel(job)

    (other,) = wait_for_free(supervisor, 1)
    assert other != token


def test_a_sandbox_that_ends_while_its_job_runs_does_not_end_the_job(engine: FakeEngine, workers: Workers) -> None:
    supervisor = workers.another(sandboxes=1)
    (token,) = wait_for_free(supervisor, 1)
    job = make_job(command="while [ ! -e end ]; do sleep 0.05; done; exit 3")
    workers.run(supervisor)
    running(job)

    engine.stop(sandboxes(engine)[token].name, 0)
    (container,) = engine.list({UUID_LABEL: str(job.pk)})
    engine._find(container.name).files.host("/workspace/end").touch()

    assert completed(job).exit_code == 3
    assert wait_for_free(supervisor, 1) != [token]


# -- how many ---------------------------------------------------------------------------------------


def test_the_pool_grows_with_use_up_to_the_size_of_the_node(engine: FakeEngine, workers: Workers) -> None:
    # Given a worker on a node that runs one job of one cpu at once
    supervisor = workers.another(sandboxes=None, node_cpus=1, cpu_overcommit=1)
    wait_for_free(supervisor, 1)

    # When more than two jobs run at once
    jobs = [sleeping(workers, supervisor, cpu_millis=100) for _ in range(4)]
    for job in jobs:
        cancel(job)

    # I expect it to keep two sandboxes
    wait_for_free(supervisor, 2)


def test_the_pool_shrinks_to_one_when_it_is_not_used(engine: FakeEngine, workers: Workers) -> None:
    workers.set_intervals(sandbox={"resize": 0.2})
    supervisor = workers.another(sandboxes=None)
    jobs = [sleeping(workers, supervisor) for _ in range(3)]
    for job in jobs:
        cancel(job)

    wait_for(lambda: len(sandboxes(engine)) == 1, 20, "one sandbox")
    wait_for_free(supervisor, 1)


def test_workers_share_the_number_of_sandboxes(engine: FakeEngine, workers: Workers) -> None:
    first = workers.another(sandboxes=4)
    wait_for_free(first, 4)

    second = workers.another(sandboxes=4)
    first.sandboxes.look()

    wait_for_free(first, 2)
    wait_for_free(second, 2)


def test_an_old_sandbox_is_replaced(engine: FakeEngine, workers: Workers) -> None:
    workers.set_intervals(sandbox={"lifetime": 0.5})
    supervisor = workers.another(sandboxes=1)
    (token,) = wait_for_free(supervisor, 1)

    wait_for(lambda: free(supervisor) not in ([], [token]), 20, "another sandbox")


def test_sandboxes_on_an_earlier_network_are_replaced(engine: FakeEngine, workers: Workers) -> None:
    supervisor = workers.another(sandboxes=1)
    (token,) = wait_for_free(supervisor, 1)
    supervisor.node.network_name = "another"
    engine.create_network("another", {})

    job = sleeping(workers, supervisor)

    assert joined(engine, job) is None
    assert wait_for_free(supervisor, 1) != [token]
    cancel(job)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("failure", [EngineUnavailable("no"), RuntimeError("a bug")])
def test_failures_are_logged_once_and_fail_no_job(
    engine: FakeEngine, workers: Workers, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    for _ in range(5):
        engine.fail_next("create_sandbox", failure)
    supervisor = workers.another(sandboxes=1)

    cancel(sleeping(workers, supervisor))

    wait_for_free(supervisor, 1)
    assert len(messages(caplog)) == 1


@pytest.mark.usefixtures("no_retries")
@pytest.mark.parametrize("says", ["no", "nothing"])
def test_sandboxes_that_are_never_clean_are_made_with_pauses(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, says: str
) -> None:
    # Given an engine on which no sandbox is ever clean
    def is_sandbox_clean(_name: str) -> bool:
        if says == "nothing":
            raise EngineSilent("no answer")
        return False

    monkeypatch.setattr(engine, "is_sandbox_clean", is_sandbox_clean)
    made = count_calls(engine, monkeypatch, "create_sandbox")

    # When a worker has made one, and has other things to do
    pool = workers.another(sandboxes=2).sandboxes
    wait_for(lambda: made and not pool._all, 20, "the first one to be removed")
    pool.look()
    wait_for(lambda: not pool._look_due, 20, "the worker to have looked for others")
    assert pool.take() is None

    # I expect it to make no other before the pause is over, and to say so once
    assert len(made) == 1
    assert [message for message in messages(caplog) if "make" in message] == messages(caplog)
    assert len(messages(caplog)) == 1


@pytest.mark.usefixtures("quick")
def test_a_used_sandbox_about_which_the_engine_is_silent_is_asked_again(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = workers.another(sandboxes=1)
    before = wait_for_free(supervisor, 1)
    made = count_calls(engine, monkeypatch, "create_sandbox")
    engine.fail_next("is_sandbox_clean", EngineSilent("overloaded"))

    use(supervisor)

    assert wait_for_free(supervisor, 1) == before
    assert not made


@pytest.mark.usefixtures("no_retries")
def test_a_sandbox_that_cannot_be_removed_holds_up_no_other(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given two sandboxes, of which one must be removed, and the engine cannot
    supervisor = workers.another(sandboxes=2)
    wait_for_free(supervisor, 2)
    fail_calls(engine, monkeypatch, "remove", free(supervisor)[-1])
    stuck = use(supervisor, changed=True)

    # I expect another one in its place
    wait_for(lambda: len(free(supervisor)) == 2, 20, "two free sandboxes")
    assert stuck not in free(supervisor)

    # And sandboxes to be checked and replaced as usual
    returned = use(supervisor)
    wait_for(lambda: returned in free(supervisor), 20, "the sandbox to be free again")
    replaced = use(supervisor, changed=True)
    wait_for(lambda: len(free(supervisor)) == 2 and replaced not in sandboxes(engine), 20, "it to be replaced")
    assert len(messages(caplog)) == 1


@pytest.mark.usefixtures("no_retries")
def test_a_sandbox_that_cannot_be_checked_holds_up_no_other(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = workers.another(sandboxes=2)
    wait_for_free(supervisor, 2)
    fail_calls(engine, monkeypatch, "is_sandbox_clean", free(supervisor)[-1])
    stuck, other = supervisor.sandboxes.take(), supervisor.sandboxes.take()
    assert stuck is not None
    assert other is not None

    supervisor.sandboxes.give_back(stuck)
    supervisor.sandboxes.give_back(other)

    wait_for(lambda: free(supervisor) == [other.token], 20, "the other sandbox to be free")


@pytest.mark.usefixtures("no_retries")
def test_an_engine_that_removes_nothing_is_not_filled_up(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker with one sandbox, and an engine that removes none
    supervisor = workers.another(sandboxes=1)
    pool = supervisor.sandboxes
    wait_for_free(supervisor, 1)
    fail_calls(engine, monkeypatch, "remove", "")

    # When jobs change one after the other, I expect there to be two at most
    use(supervisor, changed=True)
    wait_for(lambda: free(supervisor), 20, "another sandbox")
    use(supervisor, changed=True)
    wait_for(lambda: len(pool._in(SandboxState.UNWANTED)) == 2, 20, "both to be unwanted")
    pool.look()
    wait_for(lambda: not pool._look_due, 20, "the worker to have looked for others")
    assert len(sandboxes(engine)) == 2


@pytest.mark.usefixtures("quick")
def test_an_engine_that_can_have_no_sandboxes_is_asked_once(engine: FakeEngine, workers: Workers) -> None:
    engine.fail_next("create_sandbox", EngineRefused("never"))
    supervisor = workers.another(sandboxes=2)
    wait_for_free(supervisor, 0)

    cancel(sleeping(workers, supervisor))

    wait_for_free(supervisor, 0)
    assert not sandboxes(engine)


@pytest.mark.usefixtures("quick")
def test_a_sandbox_that_was_made_without_an_answer_is_removed(engine: FakeEngine, workers: Workers) -> None:
    engine.fail_next("create_sandbox", EngineUnavailable("no answer"), after=True)

    supervisor = workers.another(sandboxes=1)

    wait_for_free(supervisor, 1)
    assert len(sandboxes(engine)) == 1


def test_an_idle_pool_makes_no_calls(engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = workers.another(sandboxes=2)
    wait_for_free(supervisor, 2)
    calls: list[str] = []
    for method in ("list", "inspect", "is_sandbox_clean", "create_sandbox", "remove", "rename"):
        monkeypatch.setattr(engine, method, lambda *_, method=method, **__: calls.append(method))

    beats = Worker.objects.get().counter + 1
    supervisor._beat_at = 0.0
    wait_for(lambda: Worker.objects.get().counter >= beats, 20, "a heartbeat")

    assert calls == []


# -- sandboxes of dead workers ----------------------------------------------------------------------


def die(workers: Workers, supervisor: Supervisor) -> None:
    """End a worker like `kill -9`, as far as its sandboxes are concerned: its row is gone, and nothing was tidied up."""
    supervisor.sandboxes.stop()
    for thread in supervisor.sandboxes._threads:
        thread.join(20)
    supervisor.stop()


def test_the_next_worker_adopts_the_sandboxes(engine: FakeEngine, workers: Workers) -> None:
    first = workers.another(sandboxes=2)
    before = set(wait_for_free(first, 2))
    die(workers, first)

    second = workers.another(sandboxes=2)

    assert set(wait_for_free(second, 2)) == before
    assert all(str(second._heartbeat.worker_id) in one.name for one in sandboxes(engine).values())


def test_a_sandbox_that_was_adopted_without_an_answer_is_found_again(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker that was not told that its engine has renamed the sandbox of a dead one
    first = workers.another(sandboxes=1)
    wait_for_free(first, 1)
    die(workers, first)
    lost = threading.Event()

    def rename(*args: Any) -> None:
        FakeEngine.rename(engine, *args)
        if not lost.is_set():
            lost.set()
            raise EngineUnavailable("the answer is lost")

    monkeypatch.setattr(engine, "rename", rename)
    second = workers.another(sandboxes=1)
    assert lost.wait(20)
    wait_for_free(second, 1)

    # When it sees its containers again, I expect it to keep one of both sandboxes, and to remove the other
    second.sandboxes.sort(containers(engine))
    wait_for_free(second, 1)
    assert list(sandboxes(engine)) == free(second)


def test_an_old_sandbox_is_not_adopted_for_another_lifetime(engine: FakeEngine, workers: Workers) -> None:
    # Given a sandbox that is older than the last worker
    first = workers.another(sandboxes=1)
    before = wait_for_free(first, 1)
    die(workers, first)
    for one in sandboxes(engine).values():
        engine._find(one.name)._created_at -= timedelta(hours=1)

    # I expect the next worker to replace it
    assert wait_for_free(workers.another(sandboxes=1), 1) != before


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(hours=-1)])
def test_the_clock_of_the_engine_may_differ(engine: FakeEngine, workers: Workers, ahead: timedelta) -> None:
    # Given a sandbox whose time of creation is wrong
    first = workers.another(sandboxes=1)
    wait_for_free(first, 1)
    die(workers, first)
    for one in sandboxes(engine).values():
        engine._find(one.name)._created_at += ahead

    # I expect the next worker to have a sandbox that lives as long as others at most, and no longer
    second = workers.another(sandboxes=1)
    wait_for_free(second, 1)
    (sandbox,) = second.sandboxes._in(SandboxState.FREE)
    assert sandbox.made_at <= time.monotonic()


def test_an_automatic_pool_keeps_what_it_adopts(engine: FakeEngine, workers: Workers) -> None:
    first = workers.another(sandboxes=3)
    before = set(wait_for_free(first, 3))
    die(workers, first)

    assert set(wait_for_free(workers.another(sandboxes=None), 3)) == before


def test_a_sandbox_in_use_is_adopted_and_free_after_its_job(engine: FakeEngine, workers: Workers) -> None:
    # Given a job that a worker has left running in a sandbox
    first = workers.another(sandboxes=1)
    (token,) = wait_for_free(first, 1)
    job = sleeping(workers, first)
    die(workers, first)

    # When another worker adopts both
    second = workers.another(sandboxes=1)
    workers.run(second)
    wait_for(lambda: second.sandboxes._in(SandboxState.RESERVED), 5, "the sandbox to be adopted")
    wait_for(lambda: Job.objects.get().owner_id == second._heartbeat.worker_id, 20, "the job to be adopted")

    # I expect no other job to get the sandbox meanwhile
    other = sleeping(workers, second)
    assert joined(engine, other) is None

    # And the sandbox to be free when the next removal of leftovers finds its job's container gone
    cancel(job)
    cancel(other)
    second.sandboxes.sort(containers(engine))
    assert wait_for_free(second, 1) == [token]


def test_a_living_worker_keeps_its_sandboxes(engine: FakeEngine, workers: Workers) -> None:
    first, second = workers.another(sandboxes=2), workers.another(sandboxes=2)
    first.sandboxes.look()
    of_first, of_second = set(wait_for_free(first, 1)), set(wait_for_free(second, 1))

    for supervisor in (first, second):
        supervisor.sandboxes.sort(containers(engine))

    assert set(wait_for_free(first, 1)) == of_first
    assert set(wait_for_free(second, 1)) == of_second
    assert not of_first & of_second


def test_a_worker_without_sandboxes_removes_those_of_dead_workers(engine: FakeEngine, workers: Workers) -> None:
    first = workers.another(sandboxes=2)
    wait_for_free(first, 2)
    die(workers, first)

    workers.another(sandboxes=0).sandboxes.sort(containers(engine))

    wait_for(lambda: not sandboxes(engine), 20, "no sandboxes")


def test_a_worker_that_was_declared_dead_uses_none_of_its_sandboxes(engine: FakeEngine, workers: Workers) -> None:
    # Given a worker that was declared dead and has registered again
    supervisor = workers.another(sandboxes=1)
    (token,) = wait_for_free(supervisor, 1)
    Worker.objects.all().delete()
    supervisor._heartbeat.beat(engine_answers=True)

    # I expect it not to use the sandbox, and to make another one
    assert supervisor.sandboxes.take() is None
    wait_for(lambda: free(supervisor) not in ([], [token]), 20, "another sandbox")

    # And to remove the former one, as any other worker would
    supervisor.sandboxes.sort(containers(engine))
    wait_for(lambda: len(sandboxes(engine)) == 1, 20, "one sandbox")
    assert all(str(supervisor._heartbeat.worker_id) in one.name for one in sandboxes(engine).values())


def test_a_late_request_of_the_former_owner_joins_no_sandbox(engine: FakeEngine, workers: Workers) -> None:
    # Given a worker that has taken a sandbox for a job and was killed before it created the container
    first = workers.another(sandboxes=1)
    wait_for_free(first, 1)
    taken = first.sandboxes.take()
    assert taken is not None
    die(workers, first)

    # When another worker has adopted the sandbox
    second = workers.another(sandboxes=1)
    assert wait_for_free(second, 1) == [taken.token]

    # I expect a container that is created late not to start in it
    bench = Bench()
    bench.engine = engine
    name = bench.created(sandbox=taken.name)
    with pytest.raises(SandboxRefused):
        engine.start(name)


def test_a_container_that_was_created_before_the_adoption_reserves_its_sandbox(engine: FakeEngine, workers: Workers) -> None:
    # Given a worker that was killed after it had created a container in a sandbox
    first = workers.another(sandboxes=1)
    wait_for_free(first, 1)
    taken = first.sandboxes.take()
    assert taken is not None
    bench = Bench()
    bench.engine = engine
    labels = {SANDBOX_LABEL: taken.token, UUID_LABEL: str(uuid4())}
    name = bench.created(sandbox=taken.name, labels=labels)
    die(workers, first)

    # When another worker adopts the sandbox
    second = workers.another(sandboxes=1)
    wait_for(lambda: second.sandboxes._in(SandboxState.RESERVED), 20, "the sandbox to be adopted")

    # I expect it to be free only when the container is removed
    assert second.sandboxes.take() is None
    engine.remove(name)
    second.sandboxes.sort(containers(engine))
    assert wait_for_free(second, 1) == [taken.token]


def test_a_used_sandbox_costs_two_calls(engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a worker with a sandbox
    supervisor = workers.another(sandboxes=1)
    wait_for_free(supervisor, 1)
    calls: list[str] = []

    def counted(method: str) -> Callable[..., Any]:
        original = getattr(engine, method)

        def call(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread().name == "sandboxes":
                calls.append(method)
            return original(*args, **kwargs)

        return call

    for method in ("list", "inspect", "is_sandbox_clean", "create_sandbox", "remove", "rename", "info"):
        monkeypatch.setattr(engine, method, counted(method))

    # When a job uses it
    cancel(sleeping(workers, supervisor))
    wait_for_free(supervisor, 1)

    # I expect it to be looked for containers that have joined it, and then to be asked whether it is clean
    assert calls == ["list", "is_sandbox_clean"]


def test_a_sandbox_that_is_found_twice_is_adopted_once(engine: FakeEngine, workers: Workers) -> None:
    # Given a sandbox of this worker that it does not know: the engine's answer was lost
    supervisor = workers.another(sandboxes=1)
    wait_for_free(supervisor, 1)
    die(workers, supervisor)
    pool = supervisor.sandboxes
    pool._all.clear()

    # When two lists of the engine's containers show it
    for _ in range(2):
        (found,) = [one for one in map(pool._read, containers(engine)) if one]
        pool._adopt(found)

    # I expect it to be checked once: checked twice, it could be given to two jobs
    assert [one.token for one in pool._in(SandboxState.UNCHECKED)] == [found.token]
