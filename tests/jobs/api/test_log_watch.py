"""The watch over all followed logs."""

import time
import uuid
from collections.abc import Iterator

import pytest
from django.db import OperationalError

from jobs.api import stored_log
from jobs.api.log_watch import Follower, LogWatch
from jobs.models import Job
from orchestrator_site.base.http.pauses import Pause
from orchestrator_site.base.intervals import WebIntervals
from orchestrator_site.base.stopping import stopping
from tests.helpers.api_calls import store_lines
from tests.helpers.factories import make_job
from tests.helpers.log_streams import end_log
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def watch() -> Iterator[LogWatch]:
    """A watch, whose thread ends with the test."""
    watch = LogWatch(WebIntervals(follow=0.01, retry_unavailable=0.01))
    yield watch
    stopping.set()
    wait_for(lambda: not watch._is_running, what="the thread to end")
    stopping.clear()


@pytest.fixture
def job() -> Job:
    job = make_job(id="a")
    store_lines(job, "1", "2")
    return job


def followed(watch: LogWatch, job: Job | uuid.UUID, *, position: int = 2, seconds: float = 3600) -> Follower:
    """Return a follower that waits for news of at most this many seconds."""
    of = job if isinstance(job, uuid.UUID) else job.uuid
    follower = Follower(pause=Pause(lambda _: None), job=of, position=position, deadline=time.monotonic() + seconds)
    watch.add(follower)
    return follower


def wait_for_end(*followers: Follower) -> None:
    wait_for(lambda: all(follower.pause.ended for follower in followers), what="the pauses to end")


def test_only_the_followers_of_a_log_with_news_go_on(watch: LogWatch, job: Job) -> None:
    # Given followers of two logs, one of whom does not know the last line yet
    other = make_job(id="b")
    behind, waiting, of_another = followed(watch, job, position=1), followed(watch, job), followed(watch, other, position=0)
    wait_for_end(behind)
    assert not waiting.pause.ended

    # When a line is stored, I expect the other follower of this log to go on
    store_lines(job, "3")
    wait_for_end(waiting)
    assert (waiting.has_news, of_another.pause.ended) == (True, False)


def test_the_end_of_a_log_is_news(watch: LogWatch, job: Job) -> None:
    follower = followed(watch, job)
    end_log(job)
    wait_for_end(follower)
    assert follower.has_news


def test_a_job_that_does_not_exist_is_news(watch: LogWatch) -> None:
    follower = followed(watch, uuid.uuid4())
    wait_for_end(follower)
    assert follower.has_news


def test_without_news_the_pause_ends_at_the_deadline(watch: LogWatch, job: Job) -> None:
    follower = followed(watch, job, seconds=0)
    wait_for_end(follower)
    assert not follower.has_news


def test_there_is_a_thread_only_while_a_client_waits(watch: LogWatch, job: Job) -> None:
    for _ in range(3):
        wait_for_end(followed(watch, job, seconds=0))
        wait_for(lambda: not watch._is_running, what="the thread to end")


def test_one_query_is_for_all_followers(watch: LogWatch, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given many followers of several logs
    looks = []
    find = stored_log.find_logs
    monkeypatch.setattr(stored_log, "find_logs", lambda jobs: looks.append(len(jobs)) or find(jobs))
    jobs = [job, *(make_job(id=f"other-{number}") for number in range(4))]
    followers = [followed(watch, one, position=2, seconds=0.2) for one in jobs for _ in range(20)]
    wait_for_end(*followers)
    # I expect the number of logs in each query, and no query for each follower
    assert max(looks) == len(jobs)
    assert len(looks) < len(followers)


@pytest.mark.parametrize("error", [OperationalError("gone"), ValueError("a bug")])
def test_an_error_ends_no_pause_before_its_time(
    watch: LogWatch, job: Job, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    # Given a database that does not answer
    looks = []

    def fail(_: object) -> None:
        looks.append(True)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(stored_log, "find_logs", fail)
        waiting, at_its_deadline = followed(watch, job, position=0), followed(watch, job, seconds=0)
        wait_for_end(at_its_deadline)
        wait_for(lambda: len(looks) > 2, what="some looks")
        assert not waiting.pause.ended

    # When it answers again, I expect the news
    wait_for_end(waiting)
    assert waiting.has_news
