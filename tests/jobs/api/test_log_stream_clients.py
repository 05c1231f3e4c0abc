"""Logs as server-sent events: many clients, slow ones, ones that go away, and the stop of the service."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from http.client import IncompleteRead
from pathlib import Path

import pytest

from jobs.api.log_stream import LogEvents
from jobs.api.log_watch import log_watch
from jobs.models import Job
from orchestrator_site.base.intervals import WebIntervals
from orchestrator_site.base.measurements.metrics import HTTP_REQUEST_DURATION
from orchestrator_site.web.connection_table import Limits
from orchestrator_site.wsgi import application
from tests.helpers.api_calls import store_lines
from tests.helpers.log_streams import EVENTS, Stream, end_log, make_job_with_log, wait_until_paused
from tests.helpers.waiting import wait_for
from tests.site.web.web_servers import Web, serving

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def web() -> Iterator[Web]:
    with serving(application) as web:
        yield web


@pytest.fixture
def job() -> Job:
    return make_job_with_log()


def test_more_streams_than_allowed_get_503(job: Job) -> None:
    # Given as many clients as may follow logs
    with serving(application, Limits(pausing=2)) as web:
        streams = [Stream(web, "after=3") for _ in range(2)]
        wait_until_paused(web, 2)

        # I expect that others are told to come back, and that all else works
        refused = Stream(web)
        assert (refused.response.status, refused.response.headers["Retry-After"]) == (503, "1")
        assert refused.error() == {"error": "too many clients follow logs; try again"}
        plain = web.exchange(b"GET /v1/jobs/a/logs HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert plain.body == b"a\nb\nx\n"

        # When one of them goes away, I expect its place to become free
        streams[0].close()
        wait_until_paused(web, 1)
        wait_for(lambda: web.server._places.free == 1, what="the place to become free")
        again = Stream(web, "after=2")
        assert again.texts() == ["x"]
        for stream in (refused, streams[1], again):
            stream.close()


def test_waiting_streams_take_no_thread(web: Web, job: Job) -> None:
    # Given many more streams than threads
    streams = [Stream(web, "after=3") for _ in range(40)]
    wait_until_paused(web, 40)

    # I expect other requests to be answered, and every stream to get a new line
    assert web.exchange(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").status == 200
    store_lines(job, "new")
    assert all(stream.texts() == ["new"] for stream in streams)
    for stream in streams:
        stream.close()


def test_the_duration_of_a_request_ends_where_its_stream_begins(web: Web, job: Job) -> None:
    # When a client follows a log, I expect its request to be measured although the stream goes on
    labels = ("GET", "/v1/jobs/<job_id>/logs", "200")
    before = HTTP_REQUEST_DURATION.count(*labels)
    stream = Stream(web, "after=3")
    wait_until_paused(web)
    assert HTTP_REQUEST_DURATION.count(*labels) == before + 1

    # I expect nothing more at its end
    end_log(job)
    assert stream.event()[0] == "end"
    assert stream.response.read() == b""
    assert HTTP_REQUEST_DURATION.count(*labels) == before + 1
    stream.close()


def test_a_stop_ends_streams_at_once_and_nothing_is_lost_or_repeated(job: Job) -> None:
    # Given a stream that waits, when the server stops
    with serving(application) as web:
        stream = Stream(web)
        _, event_id, _ = stream.event()
        wait_until_paused(web)
        web.begin_stop()

        # I expect the answer to end properly, without a last event
        assert stream.block() == []
        stream.close()
        web.wait_for_end()

    # When the client comes back to another one, I expect what was stored meanwhile
    store_lines(job, "new")
    with serving(application) as web:
        stream = Stream(web, "", event_id)
        assert stream.texts() == ["new"]
        stream.close()


def test_a_client_that_does_not_read_is_given_up(job: Job) -> None:
    # Given a client that follows a long log and reads nothing
    for _ in range(60):
        store_lines(job, *["x" * 1000] * 100)
    request = f"GET /v1/jobs/a/logs HTTP/1.1\r\nHost: localhost\r\nAccept: {EVENTS}\r\n\r\n".encode()
    with serving(application, Limits(pausing=1), stall=0.2, tick=0.05) as web, web.connect(request, receive_buffer=4096):
        # I expect its connection and its place to be taken from it
        wait_for(lambda: web.server._places.free == 0, what="the stream to begin")
        wait_for(lambda: web.server._places.free == 1, what="the place to become free")


def test_a_client_that_vanishes_is_noticed(web: Web, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a client that is sent nothing for an hour
    intervals = WebIntervals(stream_comment=3600)
    monkeypatch.setattr(LogEvents.__init__, "__kwdefaults__", {"intervals": intervals})
    stream = Stream(web, "after=3")
    wait_until_paused(web)

    # When it goes away, I expect nothing of it to be left
    stream.close()
    wait_until_paused(web, 0)
    wait_for(lambda: not log_watch._is_running, what="the thread to end")
    assert log_watch._followers == []


def test_a_client_that_closes_its_side_counts_as_gone(web: Web, job: Job) -> None:
    stream = Stream(web, "after=3")
    wait_until_paused(web)
    stream.connection.sock.shutdown(socket.SHUT_WR)
    wait_until_paused(web, 0)
    with pytest.raises(IncompleteRead):
        stream.response.read()
    stream.close()


def followed_by_node(web: Web, tmp_path: Path, on_line: str = "(line) => console.log(line.text)") -> "subprocess.Popen[str]":
    """Run the function of docs/usage.md; by default it prints a line for each line of the log, and at last how it ended."""
    usage = (Path(__file__).parents[3] / "docs/usage.md").read_text()
    [function] = [block for block in re.findall(r"```javascript\n(.*?)```", usage, re.DOTALL) if "function followLog" in block]
    host, port = web.address
    script = tmp_path / "follow.mjs"
    url = f"http://{host}:{port}/v1/jobs/a/logs"
    script.write_text(f"{function}\nconsole.log(await followLog('{url}', {on_line}).then(() => '(end)', String));\n")
    return subprocess.Popen(["node", script], stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_javascript_of_the_docs_follows_a_log_over_a_restart(job: Job, tmp_path: Path) -> None:
    # Given a client in JavaScript that has the lines so far
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        serving(application, listener=listener) as web,
        followed_by_node(web, tmp_path) as node,
    ):
        assert node.stdout is not None
        assert [node.stdout.readline() for _ in range(3)] == ["a\n", "b\n", "x\n"]
        wait_until_paused(web)

        # When the service restarts, and lines are stored meanwhile and afterwards
        web.begin_stop()
        web.wait_for_end()
        store_lines(job, "ä\n\nb")
        with serving(application, listener=listener) as web:
            assert [node.stdout.readline() for _ in range(3)] == ["ä\n", "\n", "b\n"]
            wait_until_paused(web)
            store_lines(job, "last")
            end_log(job)

            # I expect each line once, and the end
            assert node.stdout.read() == "last\n(end)\n"
            assert node.wait(30) == 0


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_javascript_of_the_docs_passes_on_the_errors_of_its_caller(web: Web, job: Job, tmp_path: Path) -> None:
    with followed_by_node(web, tmp_path, "() => { throw new TypeError('a bug'); }") as node:
        output, _ = node.communicate(timeout=30)
    assert output == "TypeError: a bug\n"
