"""Members that count as absent: null everywhere, and the zero values that clients in Go send for what is not set."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from jobs.api.new_job import NewJob
from orchestrator_site.base.http.api_errors import InvalidRequest
from tests.helpers.api_calls import expect_error, post_job

pytestmark = pytest.mark.stateless

URL = "https://example.com/x"
JOB: dict[str, Any] = {
    "id": "a",
    "image": "alpine:latest",
    "command": ["true"],
    "cpu": 2,
    "memory": 64,
    "timeoutSeconds": 60,
    "environment": {"A": "b"},
    "meta": {"team": "x"},
    "workspace": "/srv",
    "inputs": [
        {"type": "file", "id": "f", "path": "a", "mode": "0755", "content": "YQ==", "encoding": "base64"},
        {"type": "download", "id": "d", "path": "b", "mode": "0600", "url": URL, "headers": {"A": "b"}, "sha256": "ab" * 32},
    ],
    "outputs": [
        {"type": "upload", "id": "u", "path": "c", "url": URL, "method": "POST", "headers": {"A": "b"}},
        {"type": "event", "id": "e", "path": "d"},
    ],
    "pullPolicy": "never",
    "network": "none",
    "callback": {"url": URL, "key": ["new", "old"], "headers": {"A": "b"}, "events": ["orchestrator.job.exit"]},
}
REQUIRED = {"image", "type", "path", "content", "url"}
ZEROS = {"cpu": 0, "memory": 0, "timeoutSeconds": 0, "command": "", "workspace": ""}


def objects(job: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a request that have named members, with their paths."""
    yield "", job
    for kind in ("inputs", "outputs"):
        yield from ((f"{kind}[{index}].", entry) for index, entry in enumerate(job.get(kind) or []))
    if job.get("callback"):
        yield "callback.", job["callback"]


MEMBERS = [(path, name) for path, members in objects(JOB) for name in members]


def with_value(path: str, name: str, value: Any) -> dict[str, Any]:
    job = deepcopy(JOB)
    dict(objects(job))[path][name] = value
    return job


def without(path: str, name: str) -> dict[str, Any]:
    job = deepcopy(JOB)
    del dict(objects(job))[path][name]
    return job


@pytest.mark.parametrize(("path", "name"), MEMBERS)
def test_null_counts_as_absent(path: str, name: str) -> None:
    if name in REQUIRED:
        with pytest.raises(InvalidRequest, match="is required") as refused:
            NewJob.read(with_value(path, name, None))
        assert refused.value.field == f"{path}{name}"
    else:
        assert NewJob.read(with_value(path, name, None)) == NewJob.read(without(path, name))


@pytest.mark.parametrize(("name", "zero"), [*ZEROS.items(), ("cpu", 0.0), ("cpu", -0.0), ("memory", 0.0)])
def test_zero_values_count_as_absent(name: str, zero: Any) -> None:
    assert NewJob.read(with_value("", name, zero)) == NewJob.read(without("", name))


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("", "cpu", False),
        ("", "memory", False),
        ("", "timeoutSeconds", ""),
        ("", "command", 0),
        ("", "command", []),
        ("", "workspace", 0),
        ("", "id", ""),
        ("", "image", ""),
        ("", "pullPolicy", ""),
        ("", "network", ""),
        ("", "environment", 0),
        ("", "callback", ""),
        ("inputs[0].", "id", ""),
        ("inputs[0].", "mode", ""),
        ("inputs[1].", "sha256", ""),
        ("outputs[0].", "method", ""),
        ("callback.", "key", ""),
    ],
)
def test_other_zero_values_are_errors(path: str, name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        NewJob.read(with_value(path, name, value))
    assert refused.value.field == f"{path}{name}"


@pytest.mark.parametrize(
    ("path", "name", "value", "field"),
    [
        ("", "command", ["a", None], "command[1]"),
        ("", "environment", {"A": None}, "environment.A"),
        ("", "meta", {"team": None}, "meta.team"),
        ("", "inputs", [None], "inputs[0]"),
        ("", "outputs", [None], "outputs[0]"),
        ("inputs[1].", "headers", {"A": None}, "inputs[1].headers.A"),
        ("callback.", "key", ["a", None], "callback.key[1]"),
        ("callback.", "headers", {"A": None}, "callback.headers.A"),
        ("callback.", "events", [None], "callback.events[0]"),
    ],
)
def test_a_null_item_or_value_is_an_error(path: str, name: str, value: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        NewJob.read(with_value(path, name, value))
    assert refused.value.field == field


def test_an_unknown_member_is_an_error_even_if_it_is_null() -> None:
    with pytest.raises(InvalidRequest) as refused:
        NewJob.read(JOB | {"command2": None})
    assert refused.value.field == "command2"


@given(absent=st.sets(st.sampled_from([member for member in MEMBERS if member[1] not in REQUIRED])), data=st.data())
def test_any_members_may_be_absent_together(absent: set[tuple[str, str]], data: st.DataObject) -> None:
    with_nulls, left_out = deepcopy(JOB), deepcopy(JOB)
    for path, name in sorted(absent, reverse=True):  # inner objects before the members that hold them
        zero = data.draw(st.sampled_from([None, *([ZEROS[name]] if path == "" and name in ZEROS else [])]))
        dict(objects(with_nulls))[path][name] = zero
        del dict(objects(left_out))[path][name]
    assert NewJob.read(with_nulls) == NewJob.read(left_out)


@pytest.mark.django_db
def test_a_request_full_of_zero_values_gets_the_defaults(client: Client) -> None:
    nothing = dict.fromkeys(("environment", "meta", "inputs", "outputs", "pullPolicy", "network", "callback", "id"))
    assert post_job(client, **ZEROS, **nothing).status_code == 202
    expect_error(post_job(client, **(ZEROS | {"memory": -1})), 400, "memory")
