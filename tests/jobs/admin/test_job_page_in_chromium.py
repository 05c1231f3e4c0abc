"""What a browser makes of the page of a job: the log in colors and as text, its new lines, and nothing that a job smuggles in."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest
from django.db import transaction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import timezone

from callbacks import outbox
from callbacks.models import Attempt, Event, Subscription
from jobs.admin import job_page, log_view
from jobs.models import Job, LogChunk
from jobs.spec import CallbackSpec
from jobs.states import State
from tests.helpers.chromium import Page
from tests.helpers.factories import make_job
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.stateless]

STATUS = "document.querySelector('.job-line') !== null || document.getElementById('job-log-status').textContent !== ''"
TIME = "2026-01-01T12:00:00.123456789Z"
HOSTILE = [
    "<script>document.title = 'owned'</script>",
    "<img src=x onerror=\"document.title = 'owned'\">",
    "\x1b]8;;javascript:document.title='owned'\x07a link\x1b]8;;\x07",
    "\x1b[31;\"><script>document.title = 'owned'</script>m",
    "\x1b[38;5;1);background:url(http://127.0.0.1:1/owned)m",
    "{{ 7 * 191 }} <p x-data x-init=\"document.title = 'owned'\">",
    "</div></body><iframe src=/admin/></iframe>",
]


@pytest.fixture
def job() -> Job:
    """A job that runs."""
    began = timezone.now() - timedelta(seconds=30)
    job = make_job(callback=CallbackSpec(url="http://h.example/"))
    Job.objects.update(status=State.RUNNING, created_at=began, claimed_at=began, prepared_at=began, started_at=began)
    return job


def prints(job: Job, *lines: tuple[str, str]) -> None:
    """Store lines of (stream, text) as the end of the log."""
    first = Job.objects.get(pk=job.pk).log_next
    rows = [(stream, TIME, text) for stream, text in lines]
    LogChunk.objects.create(job=job, first=first, count=len(rows), lines=rows)
    Job.objects.filter(pk=job.pk).update(log_next=first + len(rows))


@pytest.fixture
def open_page(operator_page: Page, live_server: Any, job: Job) -> Callable[[], Page]:
    """Open the page of the job, and wait until its log is shown."""

    def opened() -> Page:
        operator_page.open(f"{live_server.url}/admin/jobs/job/{job.pk}/change/")
        wait_for(lambda: operator_page.evaluate(STATUS), what="the log")
        return operator_page

    return opened


def html_of(page: Page) -> str:
    return str(page.evaluate("document.documentElement.outerHTML"))


def lines_in(page: str) -> list[str]:
    """Return the HTML of each line of the log."""
    return re.findall(r'<div class="job-line .*?</span></span></div>', page, re.DOTALL)


def test_a_log_is_shown_in_colors(job: Job, open_page: Callable[[], Page]) -> None:
    # Given lines of both streams with colors
    prints(job, ("stdout", "\x1b[1;32mgreen\x1b[0m plain"), ("stderr", "\x1b[38;2;1;2;3mdark\x1b[0m"))

    # When the page is opened
    page = open_page()
    first, second = lines_in(html_of(page))

    # I expect the streams and colors to be told apart
    assert "job-line-stdout" in first
    assert re.search(
        r'<span class="job-bold" style="color: rgb\(\d+, \d+, \d+\);">green</span><span class=""> plain</span>', first
    )
    assert "job-line-stderr" in second
    assert 'style="color: rgb(1, 2, 3);">dark<' in second
    assert page.errors == []


def test_what_a_job_prints_stays_text(job: Job, open_page: Callable[[], Page]) -> None:
    # Given a job that prints what a browser, Alpine.js or a terminal could obey
    prints(job, *(("stdout", line) for line in HOSTILE))

    # When the page is opened, and its scripts have run
    page = open_page()
    page.pass_time(3)

    # I expect text
    assert "owned" not in page.evaluate("document.title")
    found = lines_in(html_of(page))
    assert len(found) == len(HOSTILE)
    assert "&lt;script&gt;document.title" in found[0]
    assert "&lt;img src=x onerror=" in found[1]
    assert ">a link<" in found[2]
    assert "{{ 7 * 191 }}" in found[5]
    tags = set(re.findall(r"<(\w+)", "".join(found)))
    assert tags == {"div", "span", "time"}
    assert page.errors == []


def publish(job: Job, type_: str) -> None:
    """Publish an event, which was tried in vain."""
    with transaction.atomic():
        outbox.publish(job.pk, type_, "s", {})
    event = Event.objects.latest("sequence")
    Attempt.objects.create(event=event, time=timezone.now(), latency_ms=1, error="cannot connect to h.example")


def test_new_lines_and_events_appear(job: Job, open_page: Callable[[], Page], monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a job with a long log, which prints more than one answer holds after the page was opened, and ends; and an event
    # that cannot be delivered at first
    prints(job, *(("stdout", f"line {number}") for number in range(1, 801)))
    publish(job, "orchestrator.job.start")
    asked: list[str] = []
    refreshed = Mock(wraps=job_page._state)
    monkeypatch.setattr(job_page, "_state", refreshed)
    answer_piece = log_view.answer_piece

    def print_more(request: HttpRequest, uuid: UUID) -> HttpResponseBase:
        asked.append(request.get_full_path())
        if len(asked) == 2:
            prints(job, *(("stderr", f"line {number}") for number in range(801, 1501)))
            now = timezone.now()
            Job.objects.update(status=State.COMPLETED, finished_at=now, exited_at=now, completed_at=now)
            publish(job, "orchestrator.job.complete")
            Event.objects.filter(sequence=1).update(state=Event.State.DEAD, settled_at=now)
            Event.objects.filter(sequence=2).update(state=Event.State.DELIVERED, settled_at=now)
            Subscription.objects.update(next_attempt_at=None)
        return answer_piece(request, uuid)

    monkeypatch.setattr(log_view, "answer_piece", print_more)

    # When the page stays open, with an event's attempts closed and the focus on a button
    page = open_page()
    page.evaluate(
        "window.attempts = document.querySelector('.job-events details'); attempts.querySelector('summary').click();"
        "window.button = document.querySelector('.job-events button'); button.focus()"
    )
    page.pass_time(20)

    # I expect the end of the log as it was at first, a button for what was before, and all new lines in order
    html = html_of(page)
    numbers = [int(number) for number in re.findall(r'class="job-line [^>]*data-number="(\d+)"', html)]
    assert numbers == list(range(301, 1501))
    assert "line 1500" in lines_in(html)[-1]

    # and the state and events as they are now, with everything that was there still in its place
    assert "Its process ended with exit code 0" in page.text
    shown = page.evaluate("[...document.querySelectorAll('.job-events li[id]')].map(line => line.innerText)")
    assert ["DEAD" in shown[0], "DELIVERED" in shown[1]] == [True, True]
    assert "orchestrator.job.complete" in shown[1]
    assert page.evaluate("attempts.isConnected && !attempts.open && document.activeElement === button")

    # and no more questions after the end: one more for the log, one for the rest
    assert (len(asked), refreshed.call_count) == (3, 2)

    # When the button is pressed, I expect the lines before, and no button any more
    page.evaluate("document.querySelector('.job-log-more').click()")
    wait_for(lambda: page.evaluate("document.querySelectorAll('.job-line').length") == 1500, what="the earlier lines")
    assert "line 1" in lines_in(html_of(page))[0]
    assert "Load earlier lines" not in page.text
    assert page.errors == []


def test_one_stream_can_be_shown(job: Job, open_page: Callable[[], Page]) -> None:
    # Given lines of both streams
    prints(job, ("stdout", "result"), ("stderr", "complaint"))
    page = open_page()
    assert "result" in page.text
    assert "complaint" in page.text

    # When stderr is chosen, I expect only that
    page.evaluate(
        "const stream = document.getElementById('job-log-stream');"
        "stream.value = 'stderr'; stream.dispatchEvent(new Event('change'))"
    )
    assert "result" not in page.text
    assert "complaint" in page.text


def test_the_page_does_not_grow_with_the_log(job: Job, open_page: Callable[[], Page]) -> None:
    # Given the page of a job without output, which says so, and which holds five lines
    page = open_page()
    page.evaluate("document.getElementById('job-log').dataset.lines = 5")
    assert lines_in(html_of(page)) == []
    assert "It has printed nothing yet." in page.text

    def shown() -> list[int]:
        numbers: list[int] = page.evaluate("[...document.querySelectorAll('.job-line')].map(one => +one.dataset.number)")
        return numbers

    def click(button: str) -> None:
        page.evaluate(f"[...document.querySelectorAll('.job-log-more')].find(one => one.innerText === '{button}').click()")

    # When more is printed while it follows the end, I expect the last lines
    prints(job, *(("stdout", f"line {number}") for number in range(1, 5)))
    page.pass_time(3)
    assert shown() == [1, 2, 3, 4]
    prints(job, *(("stdout", f"line {number}") for number in range(5, 8)))
    page.pass_time(3)
    assert shown() == [3, 4, 5, 6, 7]

    # and when earlier lines are loaded, those, and a hint that later ones are not shown, even if more is printed
    hint = "Later lines are not shown: the page holds 5 at most."
    click("Load earlier lines")
    wait_for(lambda: shown() == [1, 2, 3, 4, 5], what="the earlier lines")
    assert hint in page.text
    prints(job, ("stdout", "line 8"))
    page.pass_time(3)
    assert shown() == [1, 2, 3, 4, 5]

    # and at the end the last ones again, without the hint, which stay while they are read
    click("Go to the end")
    wait_for(lambda: shown()[-1] == 8, what="the end")
    assert (len(shown()), hint in page.text) == (5, False)
    page.evaluate("document.getElementById('job-log-follow').checked = false")
    prints(job, ("stdout", "line 9"))
    page.pass_time(3)
    assert shown() == [4, 5, 6, 7, 8]
    assert hint in page.text
    assert page.errors == []


def test_a_job_is_run_again_and_cancelled_by_clicks(job: Job, open_page: Callable[[], Page]) -> None:
    # Given the page of a job
    page = open_page()

    def press(button: str) -> None:
        """Press a button, and then the one in its dialog."""
        page.evaluate(f"document.querySelector('a[hx-get$=\"/{button}/\"]').click()")
        ready = "document.querySelector('#dialog form')?.['htmx-internal-data']?.listenerInfos !== undefined"
        wait_for(lambda: page.evaluate(ready), what="the dialog")
        page.evaluate("document.querySelector('#dialog [type=submit]').click()")

    # When "Run again" is pressed, I expect the page of the new job
    press("run_again")
    wait_for(lambda: page.evaluate("location.pathname") != f"/admin/jobs/job/{job.pk}/change/", what="another page")
    again = Job.objects.exclude(pk=job.pk).get()
    wait_for(lambda: f"Apart from its id it is the same as {job.id}." in page.text, what="the page of the new job")
    assert page.evaluate("location.pathname") == f"/admin/jobs/job/{again.pk}/change/"

    # and when "Cancel the job" is pressed there, I expect its page to say so
    press("cancel")
    wait_for(lambda: "It was cancelled before its process was started." in page.text, what="the end of the job")
    again.refresh_from_db()
    assert again.status == State.CANCELLED
    assert page.errors == []
