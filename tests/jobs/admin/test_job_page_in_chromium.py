"""What a browser makes of the page of a job: the log in colors and as text, its new lines, and nothing that a job smuggles in."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from jobs.models import Job, LogChunk
from jobs.states import State
from tests.helpers.browser import dom_after, logged_in_as, needs_chromium, screenshot
from tests.helpers.factories import make_job

pytestmark = [pytest.mark.django_db(transaction=True), needs_chromium]

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
    job = make_job(callback=None)
    Job.objects.update(status=State.RUNNING, created_at=began, claimed_at=began, prepared_at=began, started_at=began)
    return job


def prints(job: Job, *lines: tuple[str, str]) -> None:
    """Store lines of (stream, text) as the end of the log."""
    first = Job.objects.get(pk=job.pk).log_next
    rows = [(stream, TIME, text) for stream, text in lines]
    LogChunk.objects.create(job=job, first=first, count=len(rows), lines=rows)
    Job.objects.filter(pk=job.pk).update(log_next=first + len(rows))


def page_of(job: Job, seconds: float = 1) -> str:
    with logged_in_as(User.objects.create_superuser("operator")) as address:
        return dom_after(f"{address}/admin/jobs/job/{job.pk}/change/", seconds)


def lines_in(page: str) -> list[str]:
    """Return the HTML of each line of the log."""
    return re.findall(r'<div class="job-line .*?</span></span></div>', page, re.DOTALL)


def test_a_log_is_shown_in_colors(job: Job) -> None:
    # Given lines of both streams with colors
    prints(job, ("stdout", "\x1b[1;32mgreen\x1b[0m plain"), ("stderr", "\x1b[38;2;1;2;3mdark\x1b[0m"))

    # When the page is opened
    first, second = lines_in(page_of(job))

    # I expect the streams and colors to be told apart
    assert "job-line-stdout" in first
    assert re.search(
        r'<span class="job-bold" style="color: rgb\(\d+, \d+, \d+\);">green</span><span class=""> plain</span>', first
    )
    assert "job-line-stderr" in second
    assert 'style="color: rgb(1, 2, 3);">dark<' in second


def test_what_a_job_prints_stays_text(job: Job) -> None:
    # Given a job that prints what a browser, Alpine.js or a terminal could obey
    prints(job, *(("stdout", line) for line in HOSTILE))

    # When the page is opened, and its scripts have run
    page = page_of(job, 3)

    # I expect text
    assert "owned" not in re.findall(r"<title>.*?</title>", page, re.DOTALL)[0]
    found = lines_in(page)
    assert len(found) == len(HOSTILE)
    assert "&lt;script&gt;document.title" in found[0]
    assert "&lt;img src=x onerror=" in found[1]
    assert ">a link<" in found[2]
    assert "{{ 7 * 191 }}" in found[5]
    tags = set(re.findall(r"<(\w+)", "".join(found)))
    assert tags == {"div", "span", "time"}


def test_new_lines_appear(job: Job) -> None:
    # Given a job with a long log, which prints more than one answer holds after the page was opened, and ends
    prints(job, *(("stdout", f"line {number}") for number in range(1, 801)))
    asked: list[str] = []

    def print_more(path: str) -> None:
        asked.extend([path] if path.endswith("/log/") else [])
        if asked == [path] * 2:
            prints(job, *(("stderr", f"line {number}") for number in range(801, 1501)))
            Job.objects.update(status=State.COMPLETED, finished_at=timezone.now(), exited_at=timezone.now())

    # When the page stays open
    with logged_in_as(User.objects.create_superuser("operator"), on_request=print_more) as address:
        page = dom_after(f"{address}/admin/jobs/job/{job.pk}/change/", 10)

    # I expect the end of the log as it was at first, a button for what was before, and all new lines in order
    numbers = [int(number) for number in re.findall(r'class="job-line [^>]*data-number="(\d+)"', page)]
    assert numbers == list(range(301, 1501))
    assert "line 1500" in lines_in(page)[-1]
    assert "Load earlier lines" in page

    # and no more questions after its end
    assert len(asked) == 3


def test_a_job_without_output_says_so(job: Job) -> None:
    page = page_of(job)
    assert lines_in(page) == []
    assert "It has printed nothing yet." in page


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (480, False), (1280, True)], ids=["wide", "narrow", "dark"])
def test_the_page_can_be_drawn(job: Job, tmp_path: Path, width: int, dark: bool) -> None:
    """Save a picture to look at: pytest keeps it below /tmp/pytest-of-…"""
    prints(job, *(("stdout", f"\x1b[3{number % 8}mline {number}") for number in range(100)))
    picture = tmp_path / "page.png"
    with logged_in_as(User.objects.create_superuser("operator")) as address:
        screenshot(f"{address}/admin/jobs/job/{job.pk}/change/", picture, width=width, dark=dark)
    header = picture.read_bytes()[:24]  # of a PNG
    assert int.from_bytes(header[16:20], "big") == width
