"""The log lines of a worker say which job they are about."""

import logging
import threading

import pytest

from jobs.engine.shared_pulls import SharedPulls
from jobs.errors import EngineUnavailable, ImageUnavailable
from jobs.interrupt import Interrupt
from orchestrator_site.base.log_context import log_context
from tests.fake_engine import FakeEngine
from tests.helpers.factories import make_job
from tests.helpers.service_log import service_log
from tests.helpers.workers import Workers, completed

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_lines_of_a_run_have_its_job_node_and_container(
    engine: FakeEngine, workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    # Given two jobs, the first from a request, and an engine that fails as it starts the first
    with log_context(request_id="r-1"):
        first = make_job(command="exit 0")
    second = make_job(command="exit 0")
    engine.fail_next("start", EngineUnavailable("a hiccup"))

    # When one thread runs both, and then something else is logged
    with service_log(caplog) as log:
        workers.another().run_jobs()
        logging.getLogger("jobs.test").info("something else")

    # I expect the line about the first to name it, a line about the end of both, and nothing to be left for later lines
    assert [completed(job).exit_code for job in (first, second)] == [0, 0]
    (line,) = log.about("trying again: a hiccup")
    assert (line["job"], line["request_id"], line["node"]) == (first.id, "r-1", "node")
    assert str(first.uuid) in line["container"]
    ends = [(line["job"], line.get("request_id")) for line in log.about("the job is completed")]
    assert ends == [(first.id, "r-1"), (second.id, None)]
    (later,) = log.about("something else")
    assert not {"job", "request_id", "node"} & set(later)


def test_the_lines_of_a_pull_name_the_job_that_was_first_to_need_it(caplog: pytest.LogCaptureFixture) -> None:
    # Given a pull in a thread of its own
    def pull(_: Interrupt) -> None:
        threads.append(threading.current_thread())
        logging.getLogger("jobs.test").warning("pulling")
        raise ImageUnavailable("no")

    threads: list[threading.Thread] = []

    # When a job needs it
    with service_log(caplog) as log, log_context(job="a"), pytest.raises(ImageUnavailable):
        SharedPulls().share("image", pull, 10, Interrupt())

    # I expect its lines to name the job
    assert threads[0] is not threading.current_thread()
    assert [line["job"] for line in log.about("pulling")] == ["a"]
