"""Log records say what the thread was working on."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator_site.base.log_context import ContextFilter, add_fields, in_this_context, log_context

pytestmark = pytest.mark.stateless


def fields() -> dict[str, object]:
    """Return what the filter adds to a record of this thread."""
    record = logging.makeLogRecord({})
    before = set(vars(record))
    assert ContextFilter().filter(record)
    return {name: value for name, value in vars(record).items() if name not in before}


def test_a_record_has_the_fields_of_all_contexts_around_it() -> None:
    # Given nested contexts, one of which learns more
    with log_context(node="n"):
        with log_context(job="a", container="c"):
            add_fields(job="b")
            inside = fields()
        after = fields()

    # I expect all of them inside, and only the outer ones after it
    assert inside == {"node": "n", "job": "b", "container": "c"}
    assert after == {"node": "n"}
    assert fields() == {}


def test_details_of_the_record_itself_win() -> None:
    record = logging.makeLogRecord({"job": "of the record"})
    with log_context(job="of the thread"):
        ContextFilter().filter(record)
    assert vars(record)["job"] == "of the record"


def test_threads_do_not_see_the_fields_of_others() -> None:
    # Given two threads, each in a context of its own at the same time
    both_inside = threading.Barrier(2)

    def seen(job: str) -> dict[str, object]:
        with log_context(job=job):
            both_inside.wait(10)
            return fields()

    # When they log
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(seen, ["a", "b"]))

    # I expect its own job in the records of each
    assert results == [{"job": "a"}, {"job": "b"}]


def test_a_thread_that_helps_another_has_its_fields() -> None:
    # Given a thread with fields that lets another thread do something
    with ThreadPoolExecutor(1) as pool, log_context(job="a"):
        helping = pool.submit(in_this_context(fields)).result(10)
        later = pool.submit(fields).result(10)

    # I expect these fields there, but only meanwhile
    assert helping == {"job": "a"}
    assert later == {}
