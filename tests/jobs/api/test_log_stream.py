"""GET /v1/jobs/<id>/logs as server-sent events, from the real web server: what a client gets."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.db.backends.signals import connection_created

from jobs.api import limits, log_events, log_stream, stored_log
from jobs.api.log_watch import LogWatch
from jobs.models import Job
from orchestrator_site.base.access import made_keys
from orchestrator_site.base.access.models import ApiKey
from orchestrator_site.base.intervals import WebIntervals
from orchestrator_site.base.stopping import stopping
from orchestrator_site.web.connection_table import Limits
from orchestrator_site.wsgi import application
from tests.helpers.api_calls import store_lines
from tests.helpers.factories import make_job
from tests.helpers.keys import make_key
from tests.helpers.log_streams import EVENTS, Stream, end_log, make_job_with_log, wait_until_paused
from tests.helpers.waiting import wait_for
from tests.site.web.web_servers import Web, serving

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def web() -> Iterator[Web]:
    with serving(application) as web:
        yield web


@pytest.fixture
def follow(web: Web) -> Iterator[Callable[..., Stream]]:
    """Return a function that opens a stream, which is closed after the test."""
    with ExitStack() as streams:

        def start(*arguments: Any, **more: Any) -> Stream:
            stream = Stream(web, *arguments, **more)
            streams.callback(stream.close)
            return stream

        yield start


@pytest.fixture
def job() -> Job:
    return make_job_with_log()


Follow = Callable[..., Stream]


def test_lines_come_as_they_are_stored_and_then_the_end(web: Web, follow: Follow, job: Job) -> None:
    # Given a client that has the lines so far
    stream = follow()
    assert stream.response.status == 200
    assert stream.response.headers["Content-Type"] == EVENTS
    assert stream.response.headers["Cache-Control"] == "no-store"
    assert stream.response.headers["X-Accel-Buffering"] == "no"
    assert "Accept" in stream.response.headers["Vary"]
    assert stream.block() == ["retry: 1000"]
    name, event_id, data = stream.event()
    assert (name, event_id) == ("message", "3")
    assert data == {
        "lines": [
            {"seq": 1, "stream": "stdout", "time": "2026-01-01T00:00:00.000000000Z", "text": "a"},
            {"seq": 2, "stream": "stdout", "time": "2026-01-01T00:00:00.000000001Z", "text": "b"},
            {"seq": 3, "stream": "stderr", "time": "2026-01-01T00:00:00.000000000Z", "text": "x"},
        ],
        "next": 3,
        "complete": False,
    }

    # When a line is stored while no thread works for the client, I expect it
    wait_until_paused(web)
    store_lines(job, "new\r\nline")
    assert stream.texts() == ["new\r\nline"]

    # When the log ends, I expect the last event and the end of the answer
    wait_until_paused(web)
    end_log(job)
    assert stream.event() == ("end", "4-end", {"lines": [], "next": 4, "complete": True})
    assert stream.response.read() == b""


def test_a_client_resumes_after_any_event(follow: Follow, job: Job) -> None:
    # Given a log that has ended, read an event at a time
    end_log(job)
    stream = follow("limit=1")
    events = [stream.event() for _ in range(4)]
    texts = [line["text"] for _, _, data in events for line in data["lines"]]
    assert texts == ["a", "b", "x"]

    # When a client reconnects with the id of any of them, I expect the rest, and each line once
    for count, (_, event_id, _) in enumerate(events[:-1], 1):
        rest = follow("limit=1", event_id)
        assert [text for _ in range(3 - count) for text in rest.texts()] == texts[count:]
        assert rest.event()[0] == "end"


def test_a_client_that_has_the_end_is_told_not_to_come_back(follow: Follow, job: Job) -> None:
    end_log(job)
    assert follow(last_event_id="3-end").response.status == 204
    # Without the last event, I expect it: the connection may have broken before
    assert follow(last_event_id="3").event()[0] == "end"


def test_the_header_wins_over_the_place_in_the_query(follow: Follow, job: Job) -> None:
    # A browser reconnects to the same URL
    end_log(job)
    assert follow("after=1", "2").texts() == ["x"]
    assert follow("tail=3", "2").texts() == ["x"]
    assert follow("after=2", "0").texts() == ["a", "b", "x"]
    assert follow("after=2", "").texts() == ["x"]


@pytest.mark.parametrize("event_id", ["4", "3-end", "9007199254740991", "0-end"])
def test_an_id_that_this_log_cannot_have_is_refused(follow: Follow, job: Job, event_id: str) -> None:
    # A job was deleted, and this one, which has the same id, has printed three lines so far
    stream = follow(last_event_id=event_id)
    assert stream.response.status == 400
    assert stream.error() == {"error": "is not the id of an event of this log", "field": "Last-Event-ID"}

    # I expect the same of the end of a log with another length
    end_log(job)
    assert follow(last_event_id="4-end").response.status == 400


def test_a_client_that_began_after_the_last_line_is_told_not_to_come_back_either(follow: Follow, job: Job) -> None:
    end_log(job)
    _, event_id, _ = follow("after=1000").event()
    assert follow("after=1000", event_id).response.status == 204


def test_a_revoked_key_ends_its_streams(
    web: Web, follow: Follow, job: Job, monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path
) -> None:
    # Given four clients with keys of their own, two of which were made in the admin
    keys = tmp_path / "keys"
    keys.write_text("kept\nrevoked\n")
    settings.CONFIGURATION = replace(settings.CONFIGURATION, api_auth_required=True, api_key_file=keys)
    kept = ["kept", make_key("default")]
    revoked = ["revoked", make_key("default")]
    kept_streams, revoked_streams = ([follow("after=3", key=key) for key in some] for some in (kept, revoked))
    wait_until_paused(web, 4)

    # When two keys are revoked, and then a line is stored
    keys.write_text("kept\n")
    row = ApiKey.objects.get(prefix=revoked[1][:13])
    made_keys.revoke(row.pk)
    wait_for(lambda: not made_keys.is_usable(row.prefix), what="the service to look at the key again")
    store_lines(job, "new")

    # I expect two clients to get it, the answers of the others to end, and no other answer for them
    assert [stream.texts() for stream in kept_streams] == [["new"]] * 2
    for stream in revoked_streams:
        assert (stream.block(), stream.block(), stream.response.read()) == (["retry: 1000"], [], b"")
    assert [follow("after=3", key=key).response.status for key in revoked] == [401] * 2


@pytest.mark.parametrize("event_id", ["-1", "x", "1-end-end", "9007199254740993", "99999999999999999", "1\u00b2", "end", "1 2"])
def test_a_wrong_id_is_refused(follow: Follow, job: Job, event_id: str) -> None:
    stream = follow(last_event_id=event_id)
    assert stream.response.status == 400
    assert stream.error()["field"] == "Last-Event-ID"


def test_parameters_select_lines(follow: Follow, job: Job) -> None:
    end_log(job)
    assert follow("stream=stderr").texts() == ["x"]
    assert follow("tail=2").texts() == ["b", "x"]
    assert follow("after=2").texts() == ["x"]
    assert follow("limit=2").texts() == ["a", "b"]
    assert follow("tail=0").event()[0] == "end"


@pytest.mark.parametrize(("query", "field"), [("wait=1", "wait"), ("stream=x", "stream"), ("limit=0", "limit"), ("x=1", "x")])
def test_wrong_parameters_are_refused(follow: Follow, job: Job, query: str, field: str) -> None:
    stream = follow(query)
    assert stream.response.status == 400
    assert stream.error()["field"] == field


def test_an_unknown_job_is_404(follow: Follow) -> None:
    assert follow().response.status == 404


def test_only_lines_of_the_stream_are_sent(web: Web, follow: Follow, job: Job) -> None:
    stream = follow("stream=stderr&after=3")
    wait_until_paused(web)
    store_lines(job, "out")
    store_lines(job, "err", stream="stderr")
    assert stream.texts() == ["err"]


def test_the_log_of_a_deleted_job_ends(web: Web, follow: Follow, job: Job) -> None:
    stream = follow("after=3")
    wait_until_paused(web)
    job.delete()
    assert stream.event()[:2] == ("end", "3-end")


def test_neither_a_stream_that_waits_nor_the_watch_holds_a_connection(web: Web, follow: Follow, job: Job) -> None:
    opened = []

    def note(connection: Any, **_: Any) -> None:
        opened.append(connection)

    connection_created.connect(note)
    try:
        stream = follow()
        assert stream.texts() == ["a", "b", "x"]
        wait_until_paused(web)
        looks = len(opened)
        wait_for(lambda: len(opened) > looks, what="a look of the watch")
        wait_for(lambda: all(connection.connection is None for connection in opened), what="the connections to be closed")
    finally:
        connection_created.disconnect(note)


def test_head_gets_the_headers_only_and_takes_no_place(follow: Follow, job: Job) -> None:
    head = follow(method="HEAD")
    assert (head.response.status, head.response.headers["Content-Type"]) == (200, EVENTS)
    assert head.response.read() == b""
    with serving(application, Limits(pausing=1)) as web:
        for _ in range(3):
            stream = Stream(web, method="HEAD")
            assert stream.response.status == 200
            stream.close()
        follower = Stream(web)
        wait_until_paused(web)
        stream = Stream(web, method="HEAD")
        assert stream.response.status == 200
        for one in (follower, stream):
            one.close()


def test_a_process_that_stops_sends_no_more_events(follow: Follow, job: Job) -> None:
    stopping.set()
    try:
        stream = follow()
        assert stream.block() == ["retry: 1000"]
        assert stream.response.read() == b""
    finally:
        stopping.clear()


def test_long_lines_make_short_events(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_EVENT_LENGTH", 10)
    job = make_job(id="a")
    store_lines(job, "x" * 11, "y" * 5, "z" * 5, "w")
    end_log(job)
    stream = follow()
    assert [len(stream.texts()) for _ in range(4)] == [1, 2, 1, 0]


def test_a_silent_log_gets_comments_that_say_how_far_it_was_read(
    web: Web, follow: Follow, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a stream that gets a comment after a moment without an event
    intervals = WebIntervals(stream_comment=0.2, follow=0.01)
    monkeypatch.setattr(log_stream.LogEvents.__init__, "__kwdefaults__", {"intervals": intervals})
    monkeypatch.setattr(log_stream, "log_watch", LogWatch(intervals))
    stream = follow("stream=stderr&after=3")
    assert stream.block() == ["retry: 1000"]
    assert stream.block() == [": still here"]

    # When there are lines of the other stream only, I expect a comment with the new place, and to continue there
    store_lines(job, "out")
    while (block := stream.block()) == [": still here"]:
        pass
    assert block == [": still here", "id: 4"]
    assert stream.block() == [": still here"]


def test_comments_need_no_query_of_their_own(follow: Follow, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a stream of a silent log
    reads = []
    find = stored_log.find_log
    monkeypatch.setattr(stored_log, "find_log", lambda **job: reads.append(job) or find(**job))
    intervals = WebIntervals(stream_comment=0.05, follow=0.01)
    monkeypatch.setattr(log_stream.LogEvents.__init__, "__kwdefaults__", {"intervals": intervals})
    monkeypatch.setattr(log_stream, "log_watch", LogWatch(intervals))
    stream = follow("after=3")
    assert [stream.block() for _ in range(6)][1:] == [[": still here"]] * 5
    # I expect one look for the job
    assert len(reads) == 1


def test_clients_of_one_log_share_what_is_read_of_it(web: Web, follow: Follow, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given some clients that wait at the same line, and one that wants only one stream
    streams = [follow("after=3") for _ in range(9)]
    other = follow("after=3&stream=stderr")
    wait_until_paused(web, 10)
    reads = []
    read = stored_log.read_page
    monkeypatch.setattr(stored_log, "read_page", lambda *page, **wanted: reads.append(wanted) or read(*page, **wanted))

    # When a line is stored, I expect each to get it, and as many reads as there are threads for long answers at most
    store_lines(job, "new", stream="stderr")
    assert [stream.texts() for stream in [*streams, other]] == [["new"]] * 10
    assert len([wanted for wanted in reads if wanted["stream"] is None]) <= Limits().long_answers

    # I expect nothing to be kept when no client waits
    end_log(job)
    for stream in [*streams, other]:
        assert stream.event()[0] == "end"
    wait_for(lambda: log_events.read_event.cache_info().currsize == 0, what="the events to be forgotten")


@pytest.mark.parametrize("step", ["find_logs", "read_page"])
def test_a_stream_outlives_an_outage_of_the_database(
    web: Web, follow: Follow, job: Job, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    # Given a stream whose next look at the database fails, for the state of the log or for its lines
    monkeypatch.setattr(log_stream, "log_watch", LogWatch(WebIntervals(retry_unavailable=0.01)))
    stream = follow("after=3")
    wait_until_paused(web)
    failed = []
    read = getattr(stored_log, step)

    def fail_once(*arguments: Any, **wanted: Any) -> Any:
        if not failed:
            failed.append(wanted)
            raise OperationalError("gone")
        return read(*arguments, **wanted)

    monkeypatch.setattr(stored_log, step, fail_once)
    # When there is a line, I expect it all the same, although no other follows
    store_lines(job, "new")
    assert stream.texts() == ["new"]
    assert failed


def test_an_outage_between_two_events_hides_no_line(follow: Follow, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a database that goes away after the first event of a log that is not printed to any more
    reads = []
    read = stored_log.read_page

    def read_page(*page: Any, **wanted: Any) -> Any:
        reads.append(wanted)
        if len(reads) == 2:
            raise OperationalError("gone")
        return read(*page, **wanted)

    monkeypatch.setattr(stored_log, "read_page", read_page)
    stream = follow("limit=2")
    # I expect the other lines when it is back
    assert stream.texts() == ["a", "b"]
    assert stream.texts() == ["x"]
    assert len(reads) > 2
