"""The pages of the admin in a real browser: no error in its console, whatever there is to show.

With a directory in `ADMIN_PICTURES`, these tests store a picture of each page there; look at them after a change.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.utils import timezone

from callbacks.models import Destination, Event, Subscription
from jobs.models import Job, Node, Worker
from jobs.states import Reason
from orchestrator_site.admin.start_page import views
from orchestrator_site.admin.start_page.shared import Shared
from orchestrator_site.base.intervals import AdminIntervals
from tests.helpers.admin_data import fill
from tests.helpers.chromium import Page
from tests.helpers.waiting import wait_for

# Test_lists and test_admin_requests ask both databases for the same pages.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.stateless]

PICTURES = os.environ.get("ADMIN_PICTURES")
LISTS = {
    "jobs": "jobs/job/",
    "nodes": "jobs/node/",
    "workers": "jobs/worker/",
    "destinations": "callbacks/destination/",
    "events": "callbacks/event/",
    "subscriptions": "callbacks/subscription/",
    "actions": "admin/logentry/",
    "users": "auth/user/",
    "keys": "access/apikey/",
    "new-key": "access/apikey/add/",
}
MANY = 2000
TAB, ENTER = 9, 13


@pytest.fixture
def page(operator_page: Page, monkeypatch: pytest.MonkeyPatch) -> Page:
    """A browser in which an operator has logged in. What the start page shows is never kept."""
    monkeypatch.setattr(views, "live", Shared(views._look, 0))
    monkeypatch.setattr(views, "drawn", Shared(views.charts, 0))
    return operator_page


def rows_with_pages() -> dict[str, str]:
    """Return the address of a page of each kind of row, of those that went wrong if there are any."""
    rows: dict[str, Any] = {
        "node": Node.objects.first(),
        "worker": Worker.objects.first(),
        "destination": Destination.objects.first(),
        "event": Event.objects.filter(state=Event.State.DEAD).last(),
        "subscription": Subscription.objects.first(),
        "job": Job.objects.filter(reason=Reason.EXIT_CODE).last(),
    }
    return {name: f"{row._meta.app_label}/{name}/{row.pk}/change/" for name, row in rows.items() if row}


def show(page: Page, name: str) -> None:
    """Let the browser draw the page, and store a picture of it if there is a directory for pictures."""
    page.draw()
    if PICTURES:
        page.screenshot(Path(PICTURES, f"{name}.png"))


@pytest.mark.parametrize("jobs", [0, 20, MANY])
def test_every_page_is_shown_without_errors(page: Page, live_server: Any, jobs: int) -> None:
    # Given jobs in all states, and what an operator did
    fill(jobs)
    LogEntry.objects.log_actions(User.objects.get().pk, Node.objects.all(), CHANGE, "Drained: it takes no new jobs")

    # When every page is opened, I expect no error in the console
    for name, path in {"start": "", **LISTS, **rows_with_pages()}.items():
        page.open(f"{live_server.url}/admin/{path}")
        show(page, f"{name}-{jobs}")
    assert page.errors == []


def test_pages_fit_narrow_and_dark_screens(page: Page, live_server: Any) -> None:
    # Given jobs, and a browser that prefers dark pages
    fill(20)
    page.set_dark(True)

    # When every page is opened on a phone, I expect it to fit
    too_wide = {}
    for name, path in {"start": "", **LISTS, **rows_with_pages()}.items():
        page.resize(390, 844)
        page.open(f"{live_server.url}/admin/{path}")
        show(page, f"{name}-narrow")
        if (width := page.evaluate("document.documentElement.scrollWidth")) > 390:
            too_wide[name] = width
        page.resize(1280, 900)
        show(page, f"{name}-dark")
    assert too_wide == {}
    assert page.errors == []


def test_an_open_start_page_shows_what_is_new(page: Page, live_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an open page on which nothing needs attention
    monkeypatch.setattr(views, "_INTERVALS", AdminIntervals(counts=1, charts=1))
    page.open(f"{live_server.url}/admin/")
    page.evaluate("window.opened = 'once'")
    assert "Nothing needs attention" in page.text

    # When an event is dead, I expect the page to show it, and the charts to show its attempts, without a reload
    fill(20)
    Event.objects.update(state=Event.State.DEAD, settled_at=timezone.now())
    wait_for(lambda: "was not accepted by" in page.text, what="the dead event")
    wait_for(lambda: page.evaluate("document.querySelectorAll('svg .chart-good').length > 0"), what="the charts")
    assert page.evaluate("window.opened") == "once"
    assert page.errors == []


def test_the_start_page_works_with_the_keyboard(page: Page, live_server: Any) -> None:
    # Given something that needs attention
    fill(20)
    page.open(f"{live_server.url}/admin/")

    # When the Tab key is pressed until it has the focus, and then Enter, I expect its page
    for _ in range(60):
        page.press("Tab", TAB)
        if page.evaluate("document.activeElement.classList.contains('board-problem')"):
            break
    target = page.evaluate("document.activeElement.pathname")
    page.press("Enter", ENTER, "\r")
    wait_for(lambda: page.evaluate("location.pathname") == target, what="the page of the problem")
    assert target.endswith("/change/")


def test_the_picture_in_the_readme(page: Page, live_server: Any) -> None:
    fill(200)
    page.open(f"{live_server.url}/admin/")
    show(page, "admin")
    assert "Needs attention" in page.text
