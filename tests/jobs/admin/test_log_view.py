"""The page of a job gets its log in pieces, with colors as data, and as a file."""

import json
import tracemalloc
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.admin import log_view
from jobs.log_lines import Ending
from jobs.models import Job, LogChunk
from tests.helpers.factories import make_job

pytestmark = pytest.mark.django_db

TIME = "2026-01-01T12:00:00.123456789Z"


@pytest.fixture
def viewer(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("viewer"))
    return client


def with_log(job: Job, lines: Sequence[tuple[str, str]], *, ended: bool = True, unended: list[Any] | None = None) -> Job:
    """Store lines of (stream, text) after those that the job has."""
    rows = [(stream, TIME, text) for stream, text in lines]
    LogChunk.objects.create(job=job, first=job.log_next, count=len(rows), lines=rows, unended=unended)
    job.log_next += len(rows)
    job.exited_at = timezone.now() if ended else None
    Job.objects.filter(pk=job.pk).update(log_next=job.log_next, exited_at=job.exited_at)
    return job


def numbered(count: int, start: int = 1) -> list[tuple[str, str]]:
    return [("stdout", f"line {number}") for number in range(start, start + count)]


def ask(client: Client, job: Job, **parameters: object) -> Any:
    answer = client.get(f"/admin/jobs/job/{job.pk}/log/", parameters)
    assert answer.status_code == 200, answer.content
    assert answer["Content-Type"] == "application/json"
    return answer.json()


def texts(piece: Any) -> list[str]:
    return ["".join(run["text"] for run in line["runs"]) for line in piece["lines"]]


def test_the_end_of_a_log_comes_first(viewer: Client) -> None:
    # Given a long log
    job = with_log(make_job(), numbered(1200))

    # When the page asks for its end, and then for earlier lines until there are none
    piece = ask(viewer, job)
    pieces = [texts(piece)]
    first = piece["lines"][0]["number"]
    while first > 1:
        earlier = ask(viewer, job, before=first)
        pieces.insert(0, texts(earlier))
        first = earlier["lines"][0]["number"]

    # I expect each line once, in order
    assert (piece["after"], piece["ended"], piece["more"]) == (1200, True, False)
    assert [len(found) for found in pieces] == [200, 500, 500]
    assert [text for found in pieces for text in found] == [text for _, text in numbered(1200)]


def test_new_lines_follow(viewer: Client) -> None:
    # Given a job that runs
    job = with_log(make_job(), numbered(2), ended=False)
    piece = ask(viewer, job)
    assert (texts(piece), piece["ended"]) == (["line 1", "line 2"], False)

    # When nothing is printed, I expect nothing
    piece = ask(viewer, job, after=piece["after"])
    assert (piece["lines"], piece["after"], piece["ended"]) == ([], 2, False)

    # and when more is printed than fits into a piece, the next piece after it, and the end
    with_log(job, numbered(600, start=3))
    piece = ask(viewer, job, after=piece["after"])
    assert (len(piece["lines"]), piece["more"], piece["ended"]) == (500, True, False)
    piece = ask(viewer, job, after=piece["after"])
    assert (texts(piece)[-1], piece["more"], piece["ended"]) == ("line 602", False, True)


def test_a_log_without_lines(viewer: Client) -> None:
    job = make_job()
    assert ask(viewer, job) == {"lines": [], "after": 0, "styles": {"stdout": "", "stderr": ""}, "more": False, "ended": False}


def test_streams_colors_and_endings_are_told_apart(viewer: Client) -> None:
    # Given lines of both streams, one of which is cut, and a marker
    lines = [("stdout", "\x1b[31mred"), ("stderr", "plain"), ("stdout", "still red"), ("stdout", "[marker]")]
    job = with_log(make_job(), lines, unended=[[2, Ending.PARTIAL], [3, Ending.MARKER]])

    # I expect the color to go on in its own stream only
    piece = ask(viewer, job)
    first, second, third, marker = piece["lines"]
    assert first == {"number": 1, "stream": "stdout", "time": TIME, "runs": [{"text": "red", "color": "1"}]}
    assert second["runs"] == [{"text": "plain"}]
    assert (third["runs"], third["partial"]) == ([{"text": "still red", "color": "1"}], True)
    assert marker["marker"]
    assert piece["styles"] == {"stdout": "38;5;1", "stderr": ""}


def test_a_color_goes_on_in_the_next_piece(viewer: Client) -> None:
    job = with_log(make_job(), [("stderr", "\x1b[1;42mfirst")], ended=False)
    piece = ask(viewer, job)
    with_log(job, [("stderr", "second")])
    piece = ask(viewer, job, after=piece["after"], **piece["styles"])
    assert piece["lines"][0]["runs"] == [{"text": "second", "flags": ["bold"], "background": "2"}]


@pytest.mark.parametrize(
    "parameters",
    [
        {"after": "-1"},
        {"after": "x"},
        {"after": "١"},
        {"after": "9" * 19},
        {"before": ""},
        {"after": "1", "stdout": "1m\x1b"},
        {"after": "1", "stderr": "1;" * 40},
    ],
)
def test_a_bad_request_is_refused(viewer: Client, parameters: dict[str, str]) -> None:
    job = with_log(make_job(), numbered(2))
    assert viewer.get(f"/admin/jobs/job/{job.pk}/log/?{urlencode(parameters)}").status_code == 400


@pytest.mark.parametrize("parameters", [{"after": 99}, {"before": 0}, {"before": 1}])
def test_there_are_no_lines_beyond_the_log(viewer: Client, parameters: dict[str, int]) -> None:
    assert ask(viewer, with_log(make_job(), numbered(2)), **parameters)["lines"] == []


def test_lines_before_a_number_beyond_the_log_are_its_last(viewer: Client) -> None:
    assert texts(ask(viewer, with_log(make_job(), numbered(2)), before=99)) == ["line 1", "line 2"]


@settings(max_examples=30, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0\n")), max_size=5))
def test_whatever_is_printed_is_answered(viewer: Client, lines: list[str]) -> None:
    job = with_log(make_job(), [("stdout", line) for line in lines])
    assert [line["number"] for line in ask(viewer, job)["lines"]] == list(range(1, len(lines) + 1))


def test_long_lines_make_small_pieces(viewer: Client) -> None:
    # Given a log of 10 MiB in long lines, as LOG_LIMIT allows
    length = 48 * 1024
    job = make_job()
    for _ in range(22):
        with_log(job, [("stdout", "x" * length)] * 10)

    # When the page asks for its end
    tracemalloc.start()
    answer = viewer.get(f"/admin/jobs/job/{job.pk}/log/")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    # I expect what fits into a piece, and memory for a part of the log
    assert sum(map(len, texts(json.loads(answer.content)))) <= log_view.PIECE_LENGTH
    assert peak < 16 * 1024**2

    # and the same from any other place
    piece = ask(viewer, job, after=3)
    assert sum(map(len, texts(piece))) <= log_view.PIECE_LENGTH
    assert (piece["lines"][0]["number"], piece["after"], piece["more"]) == (4, 8, True)


def test_the_log_is_a_file(viewer: Client) -> None:
    # Given a log with colors, and a last line that did not end
    job = make_job(id="a.job-1")
    with_log(job, [("stdout", "\x1b[31mred\x1b[0m"), ("stderr", "<b>"), ("stdout", "end")], unended=[[2, Ending.NOTHING]])

    # I expect exactly what was printed
    answer: Any = viewer.get(f"/admin/jobs/job/{job.pk}/log.txt")
    assert b"".join(answer.streaming_content) == b"\x1b[31mred\x1b[0m\n<b>\nend"
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert answer["Content-Disposition"] == 'attachment; filename="a.job-1.log"'


@pytest.mark.parametrize("end", ["log/", "log.txt", "state/", "events/"])
def test_only_those_who_may_see_jobs_get_anything(client: Client, end: str) -> None:
    job = with_log(make_job(), numbered(1))
    address = f"/admin/jobs/job/{job.pk}/{end}"

    # Not without a login,
    assert client.get(address).status_code == 302

    # nor without the permission
    client.force_login(User.objects.create_user("other", is_staff=True))
    assert client.get(address).status_code == 403


@pytest.mark.parametrize("end", ["log/", "log.txt", "state/", "events/"])
def test_there_is_nothing_of_a_job_that_does_not_exist(viewer: Client, end: str) -> None:
    assert viewer.get(f"/admin/jobs/job/01a22877-9919-76d1-ac26-c3875cdabe14/{end}").status_code == 404
