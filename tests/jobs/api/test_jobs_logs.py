"""GET /v1/jobs/<id>/logs."""

import threading
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.api import limits
from jobs.log_lines import Ending
from jobs.models import Job, LogChunk
from orchestrator_site.base.http import long_polls
from tests.helpers.api_calls import Answer, expect_error, store_lines
from tests.helpers.factories import make_job
from tests.helpers.waiting import wait_for

JSON = {"Accept": "application/json"}


def end_log(job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(exited_at=timezone.now())


def text(client: Client, query: str = "") -> str:
    answer = client.get(f"/v1/jobs/a/logs?{query}")
    assert answer.status_code == 200, answer.content
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    content: str = answer.getvalue().decode()
    return content


def page(client: Client, query: str = "") -> dict[str, Any]:
    answer = client.get(f"/v1/jobs/a/logs?{query}", headers=JSON)
    assert answer.status_code == 200, answer.content
    assert answer["Content-Type"] == "application/json"
    body: dict[str, Any] = answer.json()
    assert body.keys() == {"lines", "next", "complete"}
    return body


def texts(body: dict[str, Any]) -> list[str]:
    return [line["text"] for line in body["lines"]]


@pytest.fixture
def job() -> Job:
    """Return a job whose log has a, b, c of stdout, then x, y of stderr, then d of stdout."""
    job = make_job(id="a")
    store_lines(job, "a", "b", "c")
    store_lines(job, "x", "y", stream="stderr")
    store_lines(job, "d")
    return job


@pytest.mark.django_db
class TestText:
    def test_the_text_is_the_whole_log(self, client: Client, job: Job) -> None:
        assert text(client) == "a\nb\nc\nx\ny\nd\n"

    def test_the_text_of_an_empty_log_is_empty(self, client: Client) -> None:
        make_job(id="a")
        assert text(client) == ""

    def test_parameters_select_lines(self, client: Client, job: Job) -> None:
        assert text(client, "stream=stderr") == "x\ny\n"
        assert text(client, "after=2") == "c\nx\ny\nd\n"
        assert text(client, "after=6") == ""
        assert text(client, "after=9007199254740992") == ""
        assert text(client, "limit=4") == "a\nb\nc\nx\n"
        assert text(client, "tail=2") == "y\nd\n"
        assert text(client, "tail=100") == "a\nb\nc\nx\ny\nd\n"
        assert text(client, "tail=0") == ""
        assert text(client, "tail=2&stream=stdout") == "c\nd\n"
        assert text(client, "tail=9&stream=stderr") == "x\ny\n"
        assert text(client, "tail=3&limit=1") == "x\n"
        assert text(client, "after=5&tail=3") == "d\n"

    def test_characters_are_kept(self, client: Client) -> None:
        store_lines(make_job(id="a"), "", "ä\t\r \U0001f600", "<b>")
        assert text(client) == "\nä\t\r \U0001f600\n<b>\n"

    def test_a_log_of_many_chunks_is_read_in_order(self, client: Client) -> None:
        job = make_job(id="a")
        for number in range(40):
            store_lines(job, f"{number}.1", f"{number}.2")
        assert text(client).splitlines() == [f"{number}.{part}" for number in range(40) for part in (1, 2)]
        assert text(client, "after=41").splitlines()[0] == "20.2"
        assert text(client, "tail=33").splitlines()[0] == "23.2"


@pytest.mark.django_db
class TestUnendedLines:
    """A log has a\n, a long line in three pieces with one of stderr in between, and an unfinished last line of each stream."""

    @pytest.fixture(autouse=True)
    def _log(self) -> None:
        job = make_job(id="a")
        store_lines(job, "a", "b1", last=Ending.PARTIAL)
        store_lines(job, "x", stream="stderr")
        store_lines(job, "b2", last=Ending.PARTIAL)
        store_lines(job, "b3\r")
        store_lines(job, "end", last=Ending.NOTHING)
        store_lines(job, "y", stream="stderr", last=Ending.NOTHING)
        end_log(job)

    def test_text_is_what_was_printed(self, client: Client) -> None:
        assert text(client, "stream=stdout") == "a\nb1b2b3\r\nend"
        assert text(client, "stream=stderr") == "x\ny"

    def test_text_of_both_streams_is_in_the_order_of_the_lines(self, client: Client) -> None:
        assert text(client) == "a\nb1x\nb2b3\r\nendy"

    def test_text_can_start_and_end_in_the_middle_of_a_line(self, client: Client) -> None:
        assert text(client, "after=3") == "b2b3\r\nendy"
        assert text(client, "limit=2") == "a\nb1"
        assert text(client, "tail=3") == "b3\r\nendy"
        assert text(client, "after=1&limit=2&stream=stdout") == "b1b2"
        assert text(client, "wait=1&after=6") == "y"

    def test_json_marks_pieces_whose_line_continues(self, client: Client) -> None:
        lines = page(client)["lines"]
        assert [(line["text"], line.get("partial")) for line in lines] == [
            ("a", None), ("b1", True), ("x", None), ("b2", True), ("b3\r", None), ("end", None), ("y", None),
        ]  # fmt: skip

    def test_text_can_continue_after_a_page_of_json(self, client: Client) -> None:
        # Given a page of JSON lines; when a client continues with text, I expect the rest
        first = page(client, "limit=2")
        assert text(client, "limit=2") + text(client, f"after={first['next']}") == text(client)


@pytest.mark.django_db
def test_a_marker_is_on_a_line_of_its_own(client: Client) -> None:
    # Given a log that reached its limit in the middle of a line
    job = make_job(id="a")
    store_lines(job, "b1", last=Ending.PARTIAL)
    store_lines(job, "[the stored log ends here]", last=Ending.MARKER)
    # I expect that the marker cannot be mistaken for what the job printed
    assert text(client) == "b1\n[the stored log ends here]\n"
    assert text(client, "after=1") == "[the stored log ends here]\n"


@pytest.mark.django_db
def test_a_log_that_an_older_release_stored_has_only_whole_lines(client: Client) -> None:
    job = make_job(id="a")
    LogChunk.objects.create(job=job, first=1, count=2, lines=[["stdout", "t", "a"], ["stdout", "t", "b"]])
    Job.objects.filter(pk=job.pk).update(log_next=3)
    assert text(client) == "a\nb\n"


@pytest.mark.django_db
class TestJSON:
    def test_each_line_has_its_number_stream_and_time(self, client: Client, job: Job) -> None:
        body = page(client, "after=2&limit=2")
        assert body == {
            "lines": [
                {"seq": 3, "stream": "stdout", "time": "2026-01-01T00:00:00.000000002Z", "text": "c"},
                {"seq": 4, "stream": "stderr", "time": "2026-01-01T00:00:00.000000000Z", "text": "x"},
            ],
            "next": 4,
            "complete": False,
        }

    def test_complete_is_true_at_the_end_of_an_ended_log(self, client: Client, job: Job) -> None:
        assert not page(client)["complete"]
        end_log(job)
        assert page(client)["complete"]
        assert not page(client, "limit=5")["complete"]
        assert page(client, "limit=6")["complete"]
        assert page(client, "after=6") == {"lines": [], "next": 6, "complete": True}

    def test_next_skips_lines_of_the_other_stream(self, client: Client, job: Job) -> None:
        # Given a page of stdout that ends before lines of stderr
        first = page(client, "stream=stdout&limit=3")
        assert texts(first) == ["a", "b", "c"]
        # When I continue after it, I expect the lines that follow
        second = page(client, f"stream=stdout&after={first['next']}")
        assert (texts(second), second["next"]) == (["d"], 6)

    def test_long_lines_make_short_pages(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "LOG_PAGE_LENGTH", 10)
        job = make_job(id="a")
        store_lines(job, "x" * 11, "y" * 5, "z" * 5, "w")
        end_log(job)
        pages, after, complete = [], 0, False
        while not complete:
            body = page(client, f"after={after}")
            pages.append(len(body["lines"]))
            after, complete = body["next"], body["complete"]
        assert pages == [1, 2, 1]

    def test_default_limit(self, client: Client) -> None:
        store_lines(make_job(id="a"), *["x"] * (limits.LOG_LINES_DEFAULT + 1))
        assert len(page(client)["lines"]) == limits.LOG_LINES_DEFAULT
        assert len(page(client, f"tail={limits.LOG_LINES_DEFAULT + 1}")["lines"]) == limits.LOG_LINES_DEFAULT + 1

    @pytest.mark.parametrize(
        ("accept", "is_json"),
        [
            ("application/json", True),
            ("application/json, text/plain, */*", True),
            ("application/json;q=0.9, */*;q=0.1", True),
            ("*/*", False),
            ("text/plain, application/json", False),
            ("text/html", False),
            ("application/json;q=0", False),
            ("nonsense", False),
        ],
    )
    def test_accept_selects_the_format(self, client: Client, job: Job, accept: str, is_json: bool) -> None:
        answer = client.get("/v1/jobs/a/logs", headers={"Accept": accept})
        assert answer.status_code == 200
        assert (answer["Content-Type"] == "application/json") == is_json
        assert "Accept" in answer["Vary"]

    @given(sizes=st.lists(st.integers(1, 4), max_size=12), after=st.integers(0, 30), limit=st.integers(1, 9), data=st.data())
    @settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_pages_hold_every_line_once(
        self, client: Client, sizes: list[int], after: int, limit: int, data: st.DataObject
    ) -> None:
        Job.objects.all().delete()
        job = make_job(id="a")
        for size in sizes:
            store_lines(job, *["x"] * size, stream=data.draw(st.sampled_from(["stdout", "stderr"])))
        end_log(job)
        seen, position, complete = [], after, False
        while not complete:
            body = page(client, f"after={position}&limit={limit}")
            seen += [line["seq"] for line in body["lines"]]
            position, complete = body["next"], body["complete"]
        assert seen == list(range(after + 1, sum(sizes) + 1))


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("after=-1", "after"),
        ("after=9007199254740993", "after"),
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("tail=10001", "tail"),
        ("tail=x", "tail"),
        ("stream=stdin", "stream"),
        ("wait=31", "wait"),
        ("follow=1", "follow"),
    ],
)
def test_invalid_parameters_are_refused(client: Client, query: str, field: str) -> None:
    expect_error(client.get(f"/v1/jobs/a/logs?{query}"), 400, field)


@pytest.mark.django_db
def test_an_unknown_job_is_404(client: Client) -> None:
    expect_error(client.get("/v1/jobs/nope/logs"), 404)


class _FollowingClient(threading.Thread):
    def __init__(self, query: str, accept: str = "application/json") -> None:
        super().__init__(daemon=True)
        self.query, self.accept = query, accept
        self.answer: Answer = None
        self.content = ""

    def run(self) -> None:
        try:
            self.answer = Client().get(f"/v1/jobs/a/logs?{self.query}", headers={"Accept": self.accept})
            self.content = self.answer.getvalue().decode()
        finally:
            connection.close()

    def start_waiting(self) -> None:
        free = long_polls.slots._value
        self.start()
        wait_for(lambda: long_polls.slots._value < free, what="the client to wait")


@pytest.mark.django_db(transaction=True)
class TestWaiting:
    def test_the_answer_comes_as_soon_as_there_is_a_line(self, job: Job) -> None:
        following = _FollowingClient("after=6&wait=30")
        following.start_waiting()
        store_lines(job, "new")
        following.join(20)
        assert texts(following.answer.json()) == ["new"]

    def test_lines_of_the_other_stream_do_not_end_the_wait(self, job: Job) -> None:
        following = _FollowingClient("after=6&wait=30&stream=stderr")
        following.start_waiting()
        store_lines(job, "out")
        store_lines(job, "err", stream="stderr")
        following.join(20)
        assert texts(following.answer.json()) == ["err"]

    def test_the_answer_comes_when_the_log_has_ended(self, job: Job) -> None:
        following = _FollowingClient("after=6&wait=30")
        following.start_waiting()
        end_log(job)
        following.join(20)
        assert following.answer.json() == {"lines": [], "next": 6, "complete": True}

    def test_text_waits_too(self, job: Job) -> None:
        following = _FollowingClient("after=6&wait=30", "text/plain")
        following.start_waiting()
        store_lines(job, "new")
        following.join(20)
        assert following.content == "new\n"

    def test_stored_lines_are_answered_at_once(self, client: Client, job: Job) -> None:
        assert len(page(client, "wait=30")["lines"]) == 6

    def test_an_ended_log_is_answered_at_once(self, client: Client, job: Job) -> None:
        end_log(job)
        assert page(client, "after=6&wait=30")["complete"]

    def test_the_answer_comes_when_the_time_is_up(self, client: Client, job: Job) -> None:
        assert page(client, "after=6&wait=0.1") == {"lines": [], "next": 6, "complete": False}
