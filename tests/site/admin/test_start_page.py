"""The start page of the admin: what needs attention, live counts, the nodes and the charts."""

import re
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import transaction
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone

from callbacks import outbox
from callbacks.models import Attempt, Destination, Event
from jobs.models import Job, Node, Worker
from jobs.states import State
from orchestrator_site.admin.start_page import charts, history, views
from orchestrator_site.admin.start_page.attention import Problem, problems
from orchestrator_site.admin.start_page.counts import live_counts
from orchestrator_site.admin.start_page.shared import Shared
from orchestrator_site.base.intervals import AdminIntervals
from tests.helpers.factories import make_job, make_node, make_worker, subscribe

pytestmark = pytest.mark.django_db

LONG = timedelta(seconds=AdminIntervals().long_wait + 1)
SECRET = "canary-5b1f"
ORIGIN = "https://h.example:8443"


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    views.live.forget()
    views.drawn.forget()
    yield
    views.live.forget()
    views.drawn.forget()


@pytest.fixture
def browser(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("olga"))
    return client


def make_event(subject: str = "job-1", **values: Any) -> Event:
    stream = uuid.uuid4()
    subscribe(stream, subject, f"https://u:{SECRET}@h.example:8443/p?t={SECRET}", keys=(SECRET,))
    with transaction.atomic():
        outbox.publish(stream, "orchestrator.job.exit", "s", {})
    event = Event.objects.get(subscription__stream=stream)
    Event.objects.filter(pk=event.pk).update(**values)
    return event


def shown(found: list[Problem]) -> list[tuple[bool, str, str, str]]:
    return [(problem.urgent, problem.kind, problem.title, problem.text) for problem in found]


# -- what needs attention ----------------------------------------------------------------------------------


def test_nothing_needs_attention_in_an_empty_or_healthy_installation() -> None:
    assert problems() == []
    make_worker(make_node())
    make_event()
    make_job()
    assert problems() == []


def test_a_node_that_starts_nothing_needs_attention() -> None:
    make_worker(make_node("n1"))
    Node.objects.update(next_start_at=Now(), start_refusal="no space left on device")
    assert shown(problems()) == [(True, "node", "n1", "fails to start containers: no space left on device")]


def test_a_node_without_a_worker_is_urgent_while_jobs_wait_for_it() -> None:
    # Given a node whose worker died
    node = make_node("n1")
    assert shown(problems()) == [(False, "node", "n1", "has no living worker")]

    # When it has an unfinished job, I expect that to be urgent, also if it is drained
    Job.objects.filter(pk=make_job().pk).update(node=node, status=State.RUNNING)
    Node.objects.update(drained=True)
    assert shown(problems()) == [(True, "node", "n1", "has no living worker; its unfinished jobs wait for it")]

    # When all its jobs are finished, I expect a drained node to be as it should
    Job.objects.update(completed_at=Now())
    assert problems() == []


def test_a_node_that_went_away_long_ago_is_forgotten() -> None:
    make_node("n1")
    Node.objects.update(seen_at=Now() - timedelta(seconds=AdminIntervals().node_forgotten + 1))
    assert problems() == []


def test_an_engine_that_does_not_respond_needs_attention() -> None:
    make_worker(make_node("n1"))
    Node.objects.update(seen_at=Now() - timedelta(minutes=5))
    assert shown(problems()) == [(False, "node", "n1", "has an engine that does not respond")]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"open_until": timedelta(minutes=1), "waiting": True}, (True, "breaker open: events wait for it")),
        ({"open_until": timedelta(minutes=1)}, (False, "breaker open")),
        ({"open_until": timedelta(minutes=-1), "waiting": True}, (True, "breaker half open: events wait for it")),
        ({"open_until": timedelta(minutes=-1)}, None),
        ({"throttled_until": timedelta(minutes=1), "waiting": True}, (True, "throttled: events wait for it")),
        ({"throttled_until": timedelta(minutes=-1), "waiting": True}, None),
        ({"paused": True, "waiting": True}, (False, "paused: events wait for it")),
        ({"waiting": True}, None),
    ],
)
def test_a_destination_that_gets_nothing_needs_attention(values: dict[str, Any], problem: tuple[bool, str] | None) -> None:
    make_event()
    moments = {name: Now() + value if isinstance(value, timedelta) else value for name, value in values.items()}
    Destination.objects.update(**moments)
    expected = [(problem[0], "destination", ORIGIN, problem[1])] if problem else []
    assert shown(problems()) == expected


def test_dead_events_and_jobs_that_wait_long_are_shown_with_the_reason() -> None:
    # Given two dead events, a paused destination, a job that waits long, and one that has just come
    make_event("job-0", state=Event.State.DEAD, settled_at=timezone.now() - LONG)
    event = make_event("job-1", state=Event.State.DEAD, settled_at=timezone.now())
    for error in ("timed out", "answered 410"):
        Attempt.objects.create(event=event, time=timezone.now(), latency_ms=1, error=error)
    Destination.objects.update(paused=True)
    waiting = make_job(id="slow")
    Job.objects.update(created_at=timezone.now() - LONG)
    make_job(id="new")

    # I expect the dead events first: they are urgent
    assert shown(problems()) == [
        (True, "dead event", "exit of job-1", f"was not accepted by {ORIGIN}: answered 410"),
        (True, "dead event", "exit of job-0", f"was not accepted by {ORIGIN}: it expired"),
        (False, "destination", ORIGIN, "paused"),
        (False, "waiting job", "slow", "is waiting: no node has a living worker"),
    ]
    assert problems()[3].address == f"/admin/jobs/job/{waiting.pk}/change/"

    # and what it waits for as a part of a sentence
    make_worker(make_node())
    assert problems()[3].text == "waits for free capacity on a node"


# -- counts ------------------------------------------------------------------------------------------------


def test_everything_is_counted() -> None:
    # Given two waiting jobs and a running one, two nodes, events in each state and a paused destination
    for _ in range(3):
        job = make_job()
    Job.objects.filter(pk=job.pk).update(status=State.RUNNING)
    make_worker(make_node("n1"))
    make_node("n2")
    Event.objects.all().delete()
    make_event(state=Event.State.DEAD, settled_at=timezone.now())
    make_event(state=Event.State.DELIVERED)
    make_event()
    Destination.objects.filter(origin=ORIGIN).update(paused=True)

    # I expect all of them
    assert [(count.name, count.text, count.alarming) for count in live_counts()] == [
        ("Waiting jobs", "2", False),
        ("Running jobs", "1", False),
        ("Nodes ready", "1 of 2", True),
        ("Undelivered events", "1", False),
        ("Dead events", "1", True),
        ("Blocked destinations", "1", True),
    ]


def test_a_count_stops_at_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator_site.admin.start_page.counts.MAX_COUNTED", 1)
    make_job()
    assert live_counts()[0].text == "1"
    make_job()
    make_job()
    assert live_counts()[0].text == "over 1"


# -- charts ------------------------------------------------------------------------------------------------


def finish(status: State, ago: timedelta, waited: float, ran: float) -> None:
    finished = timezone.now() - ago
    started = finished - timedelta(seconds=ran)
    Job.objects.filter(pk=make_job().pk).update(
        status=status,
        created_at=started - timedelta(seconds=waited),
        started_at=started,
        finished_at=finished,
        completed_at=finished,
    )


def test_jobs_are_drawn_by_outcome_and_with_averages() -> None:
    # Given two jobs that finished at about the same time, one long ago, and one too long ago
    finish(State.COMPLETED, timedelta(minutes=5), waited=1, ran=10)
    finish(State.FAILED, timedelta(minutes=5), waited=3, ran=30)
    finish(State.COMPLETED, timedelta(hours=3), waited=7, ran=70)
    finish(State.COMPLETED, timedelta(hours=7), waited=9, ran=90)

    # I expect two slots with jobs, and averages of those that belong together
    found = history.finished_jobs()
    assert found.complete
    assert len(found.slots) == history.SLOTS
    with_jobs = [slot.values for slot in found.slots if slot.values]
    assert with_jobs == [
        {"completed": 1, "waited": pytest.approx(7), "ran": pytest.approx(70)},
        {"completed": 1, "failed": 1, "waited": pytest.approx(2), "ran": pytest.approx(20)},
    ]


def test_attempts_are_drawn_by_result() -> None:
    event = make_event()
    for status in (200, 204, 503, None):
        Attempt.objects.create(event=event, time=timezone.now() - timedelta(minutes=2), status=status, latency_ms=1)
    Attempt.objects.create(event=event, time=timezone.now() - timedelta(hours=7), status=200, latency_ms=1)
    assert [slot.values for slot in history.attempts().slots if slot.values] == [{"accepted": 2, "unanswered": 1, "refused": 1}]


def test_a_busy_installation_is_drawn_for_less_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given more jobs than are read
    monkeypatch.setattr(history, "MAX_READ", 3)
    for minutes in (2, 4, 6, 8):
        finish(State.COMPLETED, timedelta(minutes=minutes), waited=1, ran=1)

    # I expect the newest, without the minute of which a part may be missing, and fewer slots
    found = history.finished_jobs()
    assert not found.complete
    assert sum(slot.values.get("completed", 0) for slot in found.slots) == 2
    assert len(found.slots) <= 6

    # and the chart to say so
    assert charts.charts()[0].note == f"the newest {charts.MAX_READ:,} jobs"


def test_a_chart_of_a_few_minutes_has_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_READ", 1)
    finish(State.COMPLETED, timedelta(0), waited=1, ran=1)
    chart = charts.charts()[0]
    assert len(chart.bars) == len(chart.times) <= 2


def test_old_attempts_do_not_make_a_chart_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given as many attempts as are read, one of them before the time of the chart
    monkeypatch.setattr(history, "MAX_READ", 2)
    event = make_event()
    for hours in (7, 1):
        Attempt.objects.create(event=event, time=timezone.now() - timedelta(hours=hours), status=200, latency_ms=1)
    assert history.attempts().complete


def test_parts_of_a_bar_are_on_top_of_one_another() -> None:
    for status in (State.COMPLETED, State.COMPLETED, State.FAILED, State.CANCELLED, State.CANCELLED):
        finish(status, timedelta(minutes=5), waited=1, ran=1)
    chart = charts.charts()[0]
    bar = next(bar for bar in chart.bars if bar.rectangles)
    assert (chart.top, bar.title.partition(": ")[2]) == ("5", "2 completed, 1 failed, 2 cancelled")
    assert [(part.y, part.height, part.color) for part in bar.rectangles] == [
        (60, 40, "chart-good"),
        (40, 20, "chart-bad"),
        (0, 40, "chart-neutral"),
    ]


@pytest.mark.parametrize(("value", "top"), [(0, 0), (0.3, 0.5), (1, 1), (3, 5), (10, 10), (11, 20), (720, 1000)])
def test_the_upper_edge_of_a_chart_is_a_round_number(value: float, top: float) -> None:
    assert charts.round_up(value) == pytest.approx(top)


# -- the page ----------------------------------------------------------------------------------------------


def test_the_page_shows_everything_without_secrets(browser: Client) -> None:
    # Given jobs, a node, and a dead event for a URL with secrets
    make_worker(make_node("n1"))
    finish(State.COMPLETED, timedelta(minutes=5), waited=1, ran=10)
    make_event(state=Event.State.DEAD, settled_at=timezone.now())

    # I expect everything on the page, and the parts that it asks for later
    page = browser.get("/admin/").content.decode()
    live, drawn = browser.get("/admin/live/").content.decode(), browser.get("/admin/charts/").content.decode()
    for text in ("exit of job-1", "Dead events", "n1", "of 8 cores"):
        assert text in page
        assert text in live
    assert re.search(r"at \d\d:\d\d:\d\d UTC", live)
    assert "1 completed" in page
    assert "1 completed" in drawn
    assert browser.get("/admin/live/")["Cache-Control"] == "no-store"
    assert SECRET not in page + live + drawn


def test_a_part_is_for_users_who_may_see_it(client: Client) -> None:
    # Without a login, I expect the browser to open the login page
    for path in ("live", "charts"):
        assert client.get(f"/admin/{path}/")["HX-Redirect"] == "/admin/"

    # When a user may not see jobs, I expect nothing of them
    user = User.objects.create_user("mallory", is_staff=True)
    client.force_login(user)
    make_event("job-1", state=Event.State.DEAD, settled_at=timezone.now())
    assert client.get("/admin/live/").status_code == 403
    assert b"job-1" not in client.get("/admin/").content

    # When he may, I expect it
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    assert b"job-1" in client.get("/admin/live/").content


def test_a_refresh_reads_the_session_and_the_user_if_another_page_has_just_asked(
    browser: Client, monkeypatch: pytest.MonkeyPatch, django_assert_max_num_queries: Any
) -> None:
    monkeypatch.setattr(views, "live", Shared(views._look, 3600))
    browser.get("/admin/live/")
    with django_assert_max_num_queries(2):
        assert browser.get("/admin/live/").status_code == 200


def test_many_open_pages_cost_as_much_as_one() -> None:
    # Given an answer that is kept for ten seconds
    asked: list[int] = []
    now = [100.0]
    shared = Shared(lambda: asked.append(1) or len(asked), 10, lambda: now[0])

    # When it is asked for again before that, I expect the same, and after that a new one
    assert [shared(), shared()] == [1, 1]
    now[0] += 10
    assert [shared(), shared()] == [2, 2]


def test_pages_that_wait_for_the_first_answer_do_not_ask_again() -> None:
    # Given two threads that ask when there is no answer yet
    asking, may_answer, asked = threading.Event(), threading.Event(), []

    def ask() -> int:
        asked.append(1)
        asking.set()
        assert may_answer.wait(30)
        return len(asked)

    shared = Shared(ask, 3600)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(shared)
        assert asking.wait(30)
        second = threads.submit(shared)

        # When the first has its answer, I expect the second to take it
        may_answer.set()
        assert [first.result(30), second.result(30)] == [1, 1]


def test_while_one_page_asks_the_others_get_the_last_answer() -> None:
    # Given an answer that is too old, and a page that asks for the next
    inner: list[str] = []
    answers = iter(["old", "new"])

    def ask() -> str:
        answer = next(answers)
        if answer == "new":
            inner.append(shared())  # as another thread would
        return answer

    shared: Shared[str] = Shared(ask, 0)
    assert shared() == "old"

    # I expect another to get the old one meanwhile, without waiting
    assert shared() == "new"
    assert inner == ["old"]


def test_a_page_imports_nothing_again(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given that the page was shown before
    browser.get("/admin/")

    # When it is shown again
    searched: list[str] = []
    monkeypatch.setattr("django.utils.module_loading.import_module", searched.append)
    page = browser.get("/admin/").content.decode()

    # I expect no search for a module, with the style and the icon in the page
    assert searched == []
    assert 'href="/static/orchestrator_site/admin.css"' in page
    assert 'href="/static/orchestrator_site/icon.svg"' in page


def test_the_menu_has_what_the_user_may_see(client: Client) -> None:
    user = User.objects.create_user("victor", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=("view_job", "view_node")))
    client.force_login(user)
    page = client.get("/admin/").content.decode()
    assert 'href="/admin/jobs/node/"' in page
    assert 'href="/admin/auth/user/"' not in page
    assert Worker.objects.count() == 0
    assert client.get("/admin/jobs/worker/").status_code == 403
