"""Periodic duties: an idle relay makes one statement a second, however many duties there are."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from callbacks.models import BreakerSample, Destination
from jobs.maintenance.dead_workers import DeadWorkerDetector
from jobs.models import Job, Node, NodeSample
from orchestrator_site.base.db.existence import ExistenceQuery
from orchestrator_site.base.intervals import DeliveryIntervals
from orchestrator_site.processes.duties import Duties, Duty
from orchestrator_site.processes.relay import RelayProcess
from tests.helpers.clock import ManualClock
from tests.helpers.encryption_keys import LOST, make_secret_job
from tests.helpers.factories import make_node, make_node_sample, minute

pytestmark = pytest.mark.django_db(transaction=True)


class Calls(list[str]):
    """The names of the duties that were done."""

    def duty(self, period: float, name: str, **rows: Any) -> Duty:
        return Duty(period, lambda: self.append(name), **rows)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def calls() -> Calls:
    return Calls()


def test_each_duty_is_done_in_its_period_and_those_due_soon_at_once(clock: ManualClock, calls: Calls) -> None:
    # Given duties with periods of about one and of three seconds
    duties = Duties([calls.duty(1.0, "a"), calls.duty(1.2, "b"), calls.duty(3.0, "c")], together=0.5, clock=clock)

    # When a few seconds pass
    for _ in range(4):
        duties.do_due()
        calls.append("|")
        clock.now += 1

    # I expect the first two to be done together
    assert "".join(calls) == "abc|ab|ab|abc|"


def test_a_duty_is_done_if_there_are_rows_for_it(clock: ManualClock, calls: Calls) -> None:
    # Given duties for jobs and for nodes, and a node
    duties = Duties(
        [
            calls.duty(1.0, "jobs", rows=Job.objects.all, nothing=lambda: calls.append("no jobs")),
            calls.duty(1.0, "nodes", rows=Node.objects.all),
            calls.duty(1.0, "none", rows=Node.objects.none),
        ],
        together=0.5,
        clock=clock,
    )
    make_node()

    # When they are due, I expect one statement to find out
    with CaptureQueriesContext(connection) as queries:
        duties.do_due()
    assert calls == ["no jobs", "nodes"]
    assert len(queries) == 1


@pytest.mark.parametrize("error", [DatabaseError, ValueError])
def test_a_duty_that_fails_keeps_no_other_from_being_done(clock: ManualClock, calls: Calls, error: type[Exception]) -> None:
    def fail() -> None:
        raise error

    stopping = threading.Event()
    duties = [Duty(1.0, fail), calls.duty(1.0, "a"), Duty(1.0, stopping.set)]

    Duties(duties, together=0.5, clock=clock).do_until(stopping)

    assert calls == ["a"]


def test_a_query_that_fails_stops_its_own_duty_only(clock: ManualClock, calls: Calls) -> None:
    # Given duties of which the query of one fails
    make_node()
    duties = Duties(
        [
            calls.duty(1.0, "nodes", rows=Node.objects.all),
            calls.duty(1.0, "failing", rows=lambda: Node.objects.extra(where=["no_such_column = 1"])),
            calls.duty(1.0, "jobs", rows=Job.objects.all, nothing=lambda: calls.append("no jobs")),
            calls.duty(1.0, "always"),
        ],
        together=0.5,
        clock=clock,
    )

    # When they are due, I expect the others to be done each time
    for _ in range(2):
        duties.do_due()
        clock.now += 1
    assert calls == ["always", "nodes", "no jobs"] * 2


def test_which_queries_find_rows() -> None:
    # Given a query that is built before there is a row
    queries = ExistenceQuery(Node.objects.filter(name="node"), Job.objects.order_by("pk"), Node.objects.none())
    assert queries.ask() == [False, False, False]

    # When there is one, I expect it to be found
    make_node("node")
    assert queries.ask() == [True, False, False]


@pytest.fixture
def relay(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> list[Duties]:
    """Return the duties of a relay, those of each of its threads."""
    threads: list[Duties] = []
    monkeypatch.setattr(Duties, "do_until", lambda duties, _: threads.append(duties))
    make_duties: Callable[..., None] = Duties.__init__
    monkeypatch.setattr(Duties, "__init__", lambda self, duties, together: make_duties(self, duties, together, clock))
    monkeypatch.setattr(DeadWorkerDetector.__init__, "__defaults__", (DeadWorkerDetector.__init__.__defaults__[0], clock))  # type: ignore[index]
    process = RelayProcess(settings.CONFIGURATION)
    process.start(threading.Event())
    process.stop()
    assert len(threads) == 2
    return threads


def pass_seconds(seconds: int, relay: list[Duties], clock: ManualClock) -> None:
    for _ in range(seconds):
        for duties in relay:
            duties.do_due()
        clock.now += 1


def test_an_idle_relay_makes_few_statements(relay: list[Duties], clock: ManualClock) -> None:
    # Given the relay of a service that has nothing to do, when a minute passes
    with CaptureQueriesContext(connection) as queries:
        pass_seconds(60, relay, clock)

    # I expect a statement each second that finds out whether there is anything to do, one every four seconds for the heartbeats
    # of workers, one every ten for what is old, one every thirty for nodes, each minute a transaction with samples of nodes and
    # breakers, and at its start one for the ends of each table with secrets
    statements = [query["sql"] for query in queries if not query["sql"].startswith(("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE"))]
    assert len(statements) <= 60 + 15 + 6 + 2 + 2 + 4


def test_a_relay_reports_at_its_start_that_a_key_is_missing(
    relay: list[Duties], clock: ManualClock, caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    make_secret_job(settings, LOST)
    pass_seconds(1, relay, clock)
    assert "no key in ENCRYPTION_KEYS decrypts jobs_job" in caplog.text
    # and then not for a day
    caplog.clear()
    pass_seconds(60, relay, clock)
    assert "ENCRYPTION_KEYS" not in caplog.text


def test_a_relay_deletes_sessions_that_have_ended(relay: list[Duties], clock: ManualClock) -> None:
    now = timezone.now()
    for name, hours in (("ended", -1), ("open", 1)):
        Session.objects.create(session_key=name, expire_date=now + timedelta(hours=hours))
    pass_seconds(1, relay, clock)
    assert [session.session_key for session in Session.objects.all()] == ["open"]


def test_a_relay_takes_samples_for_charts_and_deletes_old_ones(relay: list[Duties], clock: ManualClock) -> None:
    # Given samples that no chart shows any more
    node = make_node()
    NodeSample.objects.bulk_create([make_node_sample(node, 600, cores=1, gib=1)])
    BreakerSample.objects.create(minute=minute(600), open_breakers=7)

    # When the relay starts, I expect it to delete them, and to take others
    pass_seconds(1, relay, clock)
    assert NodeSample.objects.get().cpu_millis_reserved == 0
    assert BreakerSample.objects.get().open_breakers == 0

    # When a breaker opens, I expect it to be counted before it can become half open
    opens = timedelta(seconds=DeliveryIntervals().breaker_open)
    Destination.objects.create(origin="https://h.example", used_at=timezone.now(), open_until=timezone.now() + opens)
    pass_seconds(int(DeliveryIntervals().breaker_open) - 1, relay, clock)
    assert BreakerSample.objects.latest("minute").open_breakers == 1
