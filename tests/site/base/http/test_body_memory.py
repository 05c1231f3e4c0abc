"""The memory that bodies take, and the time that other requests wait for them."""

import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.http import HttpRequest
from django.test import RequestFactory

from orchestrator_site.base.http.api_errors import InvalidRequest
from orchestrator_site.base.http.json_body import read_json

pytestmark = pytest.mark.stateless

MIB = 1024**2


def test_the_largest_bodies_take_little_memory_and_release_it() -> None:
    # Given a process that receives the bodies that take most memory, two of each at once
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    # When it has answered them
    program = [sys.executable, "-m", "tests.site.base.http.body_memory"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    # I expect the memory of one body's values at most, and that it was released
    grown = {name: (int(peak), int(kept)) for name, peak, kept in (line.split("\t") for line in done.stdout.splitlines())}
    assert grown
    assert {name: peak // MIB for name, (peak, _) in grown.items() if peak > 64 * MIB} == {}
    assert {name: kept // MIB for name, (_, kept) in grown.items() if kept > 32 * MIB} == {}


def test_an_error_keeps_no_values() -> None:
    # Given values that are refused, one because of another error
    refused: list[weakref.ref[set[int]]] = []

    def refuse(_value: object) -> None:
        values = {1}
        refused.append(weakref.ref(values))
        try:
            refuse_member()
        except ValueError as error:
            raise InvalidRequest("is refused") from error

    def refuse_member() -> None:
        values = {2}
        refused.append(weakref.ref(values))
        raise ValueError

    # When the error lives on, as until its response has been sent
    with pytest.raises(InvalidRequest) as error:
        read_json(RequestFactory().post("/v1/jobs", "[]", content_type="application/json"), refuse)

    # I expect the values to be gone
    assert [values() for values in refused] == [None, None]
    assert str(error.value) == "is refused"


def test_an_error_that_is_raised_from_its_own_consequence_is_passed_on() -> None:
    # Given an error that is raised again from one that it caused
    def refuse(_value: object) -> None:
        try:
            raise InvalidRequest("is refused")
        except InvalidRequest as first:
            try:
                raise ValueError from first
            except ValueError as second:
                raise first from second

    # When it is met, I expect it to be passed on
    with pytest.raises(InvalidRequest, match="is refused"):
        read_json(RequestFactory().post("/v1/jobs", "[]", content_type="application/json"), refuse)


def test_a_small_body_does_not_wait_for_a_large_one() -> None:
    # Given a large body that is being read
    begun, go_on = threading.Event(), threading.Event()

    def wait(value: object) -> object:
        begun.set()
        assert go_on.wait(30)
        return value

    def post(body: str) -> HttpRequest:
        return RequestFactory().post("/v1/jobs", body, content_type="application/json")

    with ThreadPoolExecutor(2) as threads:
        large = threads.submit(read_json, post(f'["{"x" * 500_000}"]'), wait)
        assert begun.wait(30)

        # When a small one is posted, I expect it to be read at once
        try:
            assert threads.submit(read_json, post('["x"]'), lambda value: value).result(10) == ["x"]
        finally:
            go_on.set()
        assert large.result(30)
