"""What a plain job costs its worker: each call, transaction and message has its reason here, and more fail the test."""

import pytest

from jobs.worker.supervisor import Supervisor
from tests.fake_engine import FakeEngine
from tests.helpers.costs import Costs, counted
from tests.helpers.factories import make_job
from tests.helpers.job_checks import end_before_first_look, event_types
from tests.helpers.workers import Workers, completed

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("limits_in_memory")]

STARTS = [
    "POST /containers/create",
    "GET /containers/X/json",  # its user, and whether Linux would accept its arguments: both may be the image's
    "POST /containers/X/start",
    "GET /containers/X/json",  # when it started by the engine's clock, or that it has ended already
]
ENDED_AT_ONCE = [
    *STARTS,
    "GET /containers/X/logs",
    "DELETE /containers/X",
]
RUNS_ON = [
    *STARTS,
    "GET /containers/X/logs?follow",  # lines while it runs, and the moment of its end
    "POST /containers/X/wait",  # the log may end before the engine has recorded the exit code
    "GET /containers/X/json",  # the exit code, and whether a restart of the engine ended it
    "GET /containers/X/logs",  # the rest: Docker 20.10 loses lines of a followed log when the process ends
    "DELETE /containers/X",
]

# Each log, which ends with its connection, and `start`, which a stopping engine must not accept; another serves all other calls.
MAX_CONNECTIONS = 4

CLAIMED = [
    "the oldest job that fits is looked for",
    "it is claimed, and what it needs is reserved",
    "the fence before the start",  # another worker may own it by now
]
LOGGED = "the log"
ENDED = [
    "exit and complete",  # with outputs these are two
    "the next job is looked for",
]
TRANSACTIONS_IF_ENDED_AT_ONCE = [
    *CLAIMED,
    "it has started, and is decided",
    LOGGED,
    *ENDED,
]
TRANSACTIONS_IF_IT_RUNS_ON = [
    *CLAIMED,
    "it has started",
    LOGGED,
    "the row is read again",  # it may have been cancelled while its log was followed, which also moved the log's cursor
    "it is decided",
    "how far its callback is behind",  # the rest of its log waits a moment for it
    *ENDED,
]
MAX_STATEMENTS = 26
MESSAGES = ["run_jobs"]  # what it needed is free for another job


def cost_of_a_second_job(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, command: str) -> Costs:
    """Run two jobs, the second when the worker knows the engine and the image, and return what that costs."""
    completed_job(supervisor, "true")
    job = make_job(command=command)
    with counted(monkeypatch) as costs:
        supervisor.run_jobs()
    assert event_types(job) == ["start", "log", "exit", "complete"]
    return costs


def completed_job(supervisor: Supervisor, command: str) -> None:
    job = make_job(command=command)
    supervisor.run_jobs()
    completed(job)


@pytest.mark.engine
@pytest.mark.alone
@pytest.mark.parametrize(
    ("command", "possible"),
    [
        pytest.param("echo hello", [ENDED_AT_ONCE, RUNS_ON], id="quick"),
        pytest.param("echo hello; sleep 0.5", [RUNS_ON], id="slow"),
    ],
)
def test_a_plain_job_needs_few_engine_calls(
    docker_workers: Workers, monkeypatch: pytest.MonkeyPatch, command: str, possible: list[list[str]]
) -> None:
    # Given a worker without sandboxes, whose calls are not those of one job, and no check of the supervisor during the test:
    # if it finds that the row has changed meanwhile, the job looks again
    docker_workers.set_intervals(worker={"tick": 60.0})
    supervisor = docker_workers.another(worker_threads=1, sandboxes=0)

    # When a plain job runs
    costs = cost_of_a_second_job(supervisor, monkeypatch, command)

    # I expect these calls, on few connections
    assert [call for call in costs.calls if call != "GET /info"] in possible
    assert costs.connections <= MAX_CONNECTIONS + costs.calls.count("GET /info")  # by the engine watch, if it was due


@pytest.mark.parametrize(
    ("command", "transactions"),
    [
        pytest.param("echo hello", TRANSACTIONS_IF_ENDED_AT_ONCE, id="quick"),
        pytest.param("echo hello; sleep 0.5", TRANSACTIONS_IF_IT_RUNS_ON, id="slow"),
    ],
)
def test_a_plain_job_needs_few_transactions_and_messages(
    engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch, command: str, transactions: list[str]
) -> None:
    # Given a worker with one thread, and no check of the supervisor during the test: both may look for work for other threads
    workers.set_intervals(worker={"tick": 60.0})
    supervisor = workers.another(worker_threads=1)
    if transactions is TRANSACTIONS_IF_ENDED_AT_ONCE:
        end_before_first_look(engine, monkeypatch)

    # When a plain job runs
    costs = cost_of_a_second_job(supervisor, monkeypatch, command)

    # I expect
    assert costs.transactions <= len(transactions)
    assert len(costs.statements) <= MAX_STATEMENTS
    assert sorted(costs.messages) == MESSAGES
