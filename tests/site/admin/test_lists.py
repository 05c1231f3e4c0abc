"""The lists of the admin: what they show, what their filters and searches find, and what that costs."""

import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from callbacks.models import Destination, Event, Subscription, new_event_id
from callbacks.operators import undelivered
from jobs import services
from jobs.api import limits
from jobs.models import Job, Node
from jobs.states import State
from orchestrator_site.base import large_lists
from orchestrator_site.base.access.models import Namespace
from orchestrator_site.base.admin_elements import relative_time
from tests.helpers.admin_data import fill
from tests.helpers.factories import job_spec, make_job, make_node, make_worker
from tests.helpers.large_tables import rows_read, vacuum

pytestmark = pytest.mark.django_db(transaction=True)

LARGE = (
    "jobs_job",
    "jobs_metaentry",
    "callbacks_destination",
    "callbacks_subscription",
    "callbacks_event",
    "callbacks_attempt",
    "django_admin_log",
)


@pytest.fixture
def browser(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("olga"))
    return client


def listed(browser: Client, path: str, **query: Any) -> list[str]:
    """Return the rows of a list."""
    answer = browser.get(f"/admin/{path}/?{urlencode(query)}")
    assert answer.status_code == 200, answer
    return [str(row) for row in answer.context["cl"].result_list]


def jobs(browser: Client, **query: Any) -> list[str]:
    return listed(browser, "jobs/job", **query)


def events(browser: Client, **query: Any) -> list[Event]:
    return list(browser.get(f"/admin/callbacks/event/?{urlencode(query)}").context["cl"].result_list)


# -- columns -----------------------------------------------------------------------------------------------


def test_lists_are_in_words(browser: Client) -> None:
    # Given jobs in all states and their events
    fill(20)

    # I expect states and reasons in words, amounts with units, and relative times
    page = browser.get("/admin/jobs/job/").content.decode()
    for text in ("Out of memory", "Exit code", "hours ago", "completed", "accepted"):
        assert text in page
    page = browser.get("/admin/jobs/node/").content.decode()
    for text in ("9.5 of 32 cores", "7 of 16 GiB", "drained", "no worker", "7 minutes ago"):
        assert text.replace(" minutes", "\xa0minutes") in page
    assert "thousandths" not in page
    page = browser.get("/admin/callbacks/destination/").content.decode()
    for text in ("breaker open", "Failures in a row", "in 1\xa0minute"):
        assert text in page


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (timedelta(seconds=5), "less than a minute ago"),
        (timedelta(minutes=5, seconds=9), "5\xa0minutes ago"),
        (timedelta(hours=30), "1\xa0day ago"),
        (timedelta(minutes=-2, seconds=-1), "in 2\xa0minutes"),
    ],
)
def test_a_time_is_relative_and_exact_on_hover(ago: timedelta, text: str) -> None:
    now = timezone.now()
    html = relative_time(now - ago, now)
    assert f">{text}<" in html
    assert f'title="{now - ago:%Y-%m-%d %H:%M:%S} UTC"' in html


def test_only_the_button_that_changes_something_is_shown(browser: Client) -> None:
    node = make_node("node-0")
    make_worker(node)
    for drained, shown, hidden in ((False, "/drain/", "/undrain/"), (True, "/undrain/", "/drain/")):
        Node.objects.update(drained=drained)
        page = browser.get(f"/admin/jobs/node/{node.pk}/change/").content.decode()
        assert shown in page
        assert hidden not in page
    fill(1)
    for paused, shown, hidden in ((False, "/pause/", "/resume/"), (True, "/resume/", "/pause/")):
        Destination.objects.update(paused=paused)
        page = browser.get(f"/admin/callbacks/destination/{Destination.objects.get().pk}/change/").content.decode()
        assert shown in page
        assert hidden not in page


# -- filters and search ------------------------------------------------------------------------------------


def test_jobs_are_found_by_id_meta_and_filters(browser: Client) -> None:
    # Given jobs with different states and members of `meta`
    node = make_node()
    make_job(id="a", meta={"team": "x"})
    failed = make_job(id="b", meta={"team": "x", "run": "1"})
    other = make_job(id="c", meta={"team": "y"})
    Job.objects.filter(pk=failed.pk).update(status=State.FAILED, reason="oom", node=node)
    Job.objects.filter(pk=other.pk).update(status=State.FAILED, reason="timeout", node=node)

    # I expect each filter and search to find its jobs, the newest first
    assert jobs(browser) == ["c", "b", "a"]
    assert jobs(browser, q="b") == ["b"]
    assert jobs(browser, q="nothing") == []
    assert jobs(browser, q="team=x") == ["b", "a"]
    assert jobs(browser, q=" run = 1 ") == ["b"]
    assert jobs(browser, q="team=nobody") == []
    assert jobs(browser, status__exact="failed") == ["c", "b"]
    assert jobs(browser, reason__exact="oom") == ["b"]
    assert jobs(browser, status__exact="accepted", reason__exact="oom") == []
    assert jobs(browser, status__exact="failed", node__id__exact=node.pk, q="team=y") == ["c"]
    assert jobs(browser, status__exact="accepted", q="team=y") == []
    assert jobs(browser, node__isnull="True") == ["a"]
    assert jobs(browser, node__isnull="True", q="team=x") == ["a"]
    assert jobs(browser, node__isnull="True", status__exact="failed") == []


def test_jobs_are_found_by_namespace(browser: Client) -> None:
    # Given a job with the same id in two namespaces
    make_job(id="a")
    assert "By namespace" not in browser.get("/admin/jobs/job/").content.decode()
    Namespace.objects.create(name="team-a")
    of_team = services.create(job_spec(id="a"), "team-a")

    # I expect to find both by their id, and one by its namespace, also with other filters
    assert jobs(browser, q="a") == ["a", "a"]
    listed_rows = browser.get("/admin/jobs/job/?namespace=team-a").context["cl"].result_list
    assert list(listed_rows) == [of_team]
    assert jobs(browser, namespace="team-a", status__exact="accepted") == ["a"]
    assert jobs(browser, namespace="nothing") == []


def test_filters_without_an_index_are_refused_or_look_at_the_newest_rows(
    browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given more rows than are looked at
    fill(40)
    monkeypatch.setattr(large_lists.BoundedChangeList, "limit", 10)

    # When a filter has values that no link of the page has, I expect the whole list of jobs
    for query in ("reason__exact=oom&reason__exact=exit_code", "status__exact=a&status__exact=b", "node__isnull=False"):
        assert browser.get(f"/admin/jobs/job/?{query}")["Location"] == "/admin/jobs/job/?e=1", query
    assert len(jobs(browser, e="1")) == 40

    # and the newest events that match
    for query in ("state__exact=dead&state__exact=pending", "state__exact=none"):
        answer = browser.get(f"/admin/callbacks/event/?{query}")
        assert "Only the newest 10 were looked at" in answer.content.decode(), query
        assert len(answer.context["cl"].result_list) < 10


def test_a_list_says_that_not_everything_was_looked_at(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given more jobs than are read for several filters
    fill(50)
    monkeypatch.setattr(limits, "ROWS_READ", 10)
    answer = browser.get("/admin/jobs/job/?reason__exact=oom&q=team%3Dvideo")
    assert "Only some of the newest jobs were looked at" in answer.content.decode()

    # I expect only those that have failed to be read: every other of them had too little memory
    assert len(answer.context["cl"].result_list) == 5

    # and only those without a node, if they are wanted
    assert len(jobs(browser, node__isnull="True", q="team=video")) == 5


def test_a_list_has_a_limit(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given more rows than are listed
    monkeypatch.setattr(large_lists, "MAX_LISTED", 60)
    monkeypatch.setattr(large_lists.BoundedChangeList, "limit", 60)
    fill(70)

    # I expect the first pages, and a hint
    answer = browser.get("/admin/jobs/job/?p=2")
    assert len(answer.context["cl"].result_list) == 10
    assert "Only the first 60 are listed" in answer.content.decode()


def test_the_order_is_that_of_an_index(browser: Client) -> None:
    fill(20)
    for column in range(7):
        assert jobs(browser, o=column) == jobs(browser), column


def test_events_are_found_by_state_job_and_id(browser: Client) -> None:
    fill(20)
    dead = listed(browser, "callbacks/event", state__exact="dead")
    assert len(dead) == Event.objects.filter(state=Event.State.DEAD).count() == 3
    assert len(listed(browser, "callbacks/event", state__exact="pending")) == 2
    assert len(listed(browser, "callbacks/event", q="render-0003")) == 1
    assert len(listed(browser, "callbacks/event", q="render-0003", state__exact="dead")) == 1
    assert listed(browser, "callbacks/event", q="render-0004", state__exact="dead") == []
    event = Event.objects.filter(state=Event.State.DEAD)[1]
    assert events(browser, q=f" {event.pk} ") == [event]
    assert events(browser, q=event.pk, state__exact="pending") == []


def test_destinations_are_found_by_url_and_by_the_beginning_of_their_host(browser: Client) -> None:
    # Given destinations of similar hosts
    origins = ["http://hook.example:8080", "https://hook.example:443", "https://hooks.example:443", "https://my.hook:443"]
    now = timezone.now()
    Destination.objects.bulk_create(Destination(origin=origin, used_at=now) for origin in origins)

    # I expect a search to find what begins like it, or the destination of a URL
    def found(text: str) -> list[int]:
        return [origins.index(origin) for origin in listed(browser, "callbacks/destination", q=text)]

    assert found("") == [0, 1, 2, 3]
    assert found("hook") == [0, 1, 2]
    assert found(" Hook.example ") == [0, 1]
    assert found("https://hook") == [1, 2]
    assert found("https://hook.example/path?query") == [1]
    assert found("http://hook.example:8080/") == [0]
    assert found("example") == found("%") == found("hook_example") == []


def test_events_of_a_job_whose_id_is_a_uuid_are_found(browser: Client) -> None:
    fill(3)
    subject = str(new_event_id())
    subscription = Subscription.objects.all()[1]
    Subscription.objects.filter(pk=subscription.pk).update(subject=subject)
    assert events(browser, q=subject) == [Event.objects.get(subscription=subscription)]


def test_the_last_dead_and_the_oldest_undelivered_events_come_first(browser: Client) -> None:
    fill(40)
    Event.objects.filter(pk=Event.objects.filter(state=Event.State.DEAD).earliest("pk").pk).update(settled_at=timezone.now())
    dead = events(browser, state__exact="dead")
    assert dead == sorted(dead, key=lambda event: event.settled_at, reverse=True)
    pending = events(browser, state__exact="pending")
    assert pending == sorted(pending, key=lambda event: event.expires_at)
    assert (len(dead), len(pending)) == (6, 5)


def test_delivered_events_are_looked_for_among_the_newest(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given more events than are looked at
    fill(40)
    monkeypatch.setattr(large_lists.BoundedChangeList, "limit", 10)
    hint = "Only the newest 10 were looked at"

    # I expect those of the newest that were delivered, and a hint
    newest = Event.objects.order_by("-pk")[:10]
    assert events(browser, state__exact="delivered") == [event for event in newest if event.state == Event.State.DELIVERED]
    assert hint in browser.get("/admin/callbacks/event/?state__exact=delivered").content.decode()
    assert hint not in browser.get("/admin/callbacks/event/").content.decode()

    # and all those of a job
    first = Event.objects.earliest("pk")
    assert events(browser, q=first.subscription.subject, state__exact="delivered") == [first]
    page = browser.get(f"/admin/callbacks/event/?q={first.subscription.subject}&state__exact=delivered").content.decode()
    assert hint not in page


# -- titles ------------------------------------------------------------------------------------------------


def test_titles_are_in_words_and_names_keep_their_case(browser: Client) -> None:
    # Given a job whose id begins with a small letter
    job = make_job(id="render")

    # I expect the title of its page to show the id as it is, and other titles to be those of the menu
    assert re.search(r"change/\"[^>]*>\s*render\s*</a", browser.get(f"/admin/jobs/job/{job.pk}/change/").content.decode())
    page = browser.get("/admin/admin/logentry/").content.decode()
    assert "Recent actions" in page
    assert "There are no recent actions yet" in page
    assert "log entr" not in page.lower()


def test_a_list_offers_to_show_all_only_if_it_does_not(browser: Client) -> None:
    make_job(id="a")
    assert "Show all" not in browser.get("/admin/jobs/job/").content.decode()
    for query in ("q=a", "q=none", "status__exact=accepted", "status__exact=failed"):
        assert "Show all" in browser.get(f"/admin/jobs/job/?{query}").content.decode(), query


# -- cost --------------------------------------------------------------------------------------------------

ROWS = 4000
QUERIES = [
    "jobs/job/",
    "jobs/job/?status__exact=failed",
    "jobs/job/?namespace=default",
    "jobs/job/?q=render-0001",
    "jobs/job/?q=shot%3D7",
    "jobs/job/?q=team%3Dnobody",
    "callbacks/event/",
    "callbacks/event/?state__exact=dead",
    "callbacks/event/?state__exact=pending",
    "callbacks/event/?state__exact=delivered",
    "callbacks/event/?q=render-0001",
    "callbacks/subscription/",
    "callbacks/subscription/?q=render-0001",
    "callbacks/destination/",
    "callbacks/destination/?paused__exact=1",
    "callbacks/destination/?paused__exact=0",
    "callbacks/destination/?q=host-0001",
    "callbacks/destination/?q=nothing",
    "callbacks/destination/{destination}/change/",
    "admin/logentry/",
    "admin/logentry/?user__id__exact={user}",
]


@pytest.mark.parametrize("query", ["", "?status__exact=accepted", "?status__exact=accepted&all="])
def test_a_page_is_read_with_a_limit(browser: Client, query: str) -> None:
    # Given fewer jobs than a page has: Django would read all that match
    fill(20)

    # When
    with CaptureQueriesContext(connection) as queries:
        browser.get(f"/admin/jobs/job/{query}")

    # I expect PostgreSQL to know how few it is to find, whatever its statistics say
    read = [query["sql"] for query in queries.captured_queries if re.search(r'FROM "jobs_job".* ORDER BY', query["sql"])]
    assert read
    for sql in read:
        assert " LIMIT " in sql


OF_A_TIME = [  # whose rows were in other states when PostgreSQL looked at the tables
    "jobs/job/?status__exact=accepted",
    "jobs/job/?status__exact=completed&q=render-0001",
    "callbacks/event/?state__exact=dead",
    "callbacks/event/?state__exact=dead&q=render-0001",
]


def reading_much(browser: Client, paths: list[str]) -> dict[str, int]:
    """Open pages, and return how many rows and index entries those read that read many.

    Of tables as small as these, PostgreSQL would prefer to read all rows.
    """
    read: dict[str, int] = {}
    for path in paths:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL enable_seqscan = off")
            before = rows_read(LARGE)
            assert browser.get(f"/admin/{path}").status_code == 200
            read[path] = rows_read(LARGE) - before
    return {path: rows for path, rows in read.items() if rows > ROWS / 4}


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite does not count rows")
def test_a_page_reads_a_few_rows_of_large_tables(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given many jobs, events, destinations and actions, and lower limits
    fill(ROWS)
    now = timezone.now()
    Destination.objects.bulk_create(Destination(origin=f"http://host-{number:04}:80", used_at=now) for number in range(ROWS))
    user, node = User.objects.get(), ContentType.objects.get_for_model(Node)
    LogEntry.objects.bulk_create(
        LogEntry(user=user, content_type=node, object_id="1", object_repr="a", action_flag=CHANGE) for _ in range(ROWS)
    )
    rows = {"destination": Destination.objects.earliest("pk").pk, "user": user.pk}
    monkeypatch.setattr(undelivered, "_LOOKED_AT", 100)
    monkeypatch.setattr(large_lists, "MAX_LISTED", 100)
    monkeypatch.setattr(large_lists.BoundedChangeList, "limit", 100)
    vacuum(LARGE, analyze=True)

    # I expect each page to read a small part of the rows
    assert reading_much(browser, [query.format(**rows) for query in QUERIES]) == {}

    # Given statistics of a time when all jobs waited and no event was dead
    Job.objects.update(status=State.ACCEPTED)
    Event.objects.update(state=Event.State.DELIVERED)
    vacuum(LARGE, analyze=True)
    Job.objects.exclude(pk=Job.objects.earliest("uuid").pk).update(status=State.COMPLETED)
    Event.objects.update(state=Event.State.DEAD, settled_at=timezone.now())
    vacuum(LARGE)

    # I expect the same
    assert reading_much(browser, OF_A_TIME) == {}
