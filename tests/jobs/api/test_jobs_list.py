"""GET /v1/jobs."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.test import Client
from django.utils import timezone

from jobs.api import job_list, limits
from jobs.models import Job
from jobs.states import State
from tests.helpers.api_calls import expect_error
from tests.helpers.factories import make_node

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def store(name: str, **values: Any) -> Job:
    """Store a job without its inputs, outputs and callback."""
    defaults: dict[str, Any] = {
        "id": name,
        "image": "alpine",
        "cpu_millis": 1000,
        "memory_mib": 64,
        "timeout_seconds": 60,
        "workspace": "/workspace",
        "pull_policy": "missing",
        "network": "bridge",
        "created_at": timezone.now(),
    }
    return Job.objects.create(**(defaults | values))


def store_at(moment: datetime, name: str) -> Job:
    milliseconds = round(moment.timestamp() * 1000)
    return store(name, created_at=moment, uuid=UUID(int=(milliseconds << 80) | (7 << 76) | (2 << 62) | 1))


def listed(client: Client, query: str = "") -> list[str]:
    answer = client.get(f"/v1/jobs?{query}")
    assert answer.status_code == 200, answer.content
    return [job["id"] for job in answer.json()["jobs"]]


def all_pages(client: Client, query: str, cursor: str | None = None) -> list[list[str]]:
    pages = []
    while True:
        body = client.get(f"/v1/jobs?{query}" + (f"&cursor={cursor}" if cursor else "")).json()
        pages.append([job["id"] for job in body["jobs"]])
        cursor = body.get("nextCursor")
        if cursor is None:
            return pages


def test_without_jobs_the_list_is_empty(client: Client) -> None:
    assert client.get("/v1/jobs").json() == {"jobs": []}


def test_the_newest_job_is_first(client: Client) -> None:
    for name in ("a", "b", "c"):
        store(name)
    assert listed(client) == ["c", "b", "a"]


def test_pages_hold_every_job_once(client: Client) -> None:
    # Given seven jobs, of which the client has read one page
    names = [f"j{number}" for number in range(7)]
    for name in names:
        store(name)
    first = client.get("/v1/jobs?limit=3").json()
    # When another job is created
    store("later")
    # I expect the others of the seven, each once, and then no cursor
    assert [job["id"] for job in first["jobs"]] == ["j6", "j5", "j4"]
    assert all_pages(client, "limit=3", first["nextCursor"]) == [["j3", "j2", "j1"], ["j0"]]
    assert all_pages(client, "limit=4") == [["later", "j6", "j5", "j4"], ["j3", "j2", "j1", "j0"]]


def test_jobs_can_be_filtered(client: Client) -> None:
    node = make_node("n1")
    store("a", image="busybox", status=State.RUNNING, node=node, meta={"team": "x", "a.b": "1"})
    store("b", image="busybox", status=State.COMPLETED, node=node, meta={"team": "y"})
    store("c", status=State.COMPLETED, meta={"team": "x", "0": "zero"})
    assert listed(client, "status=completed") == ["c", "b"]
    assert listed(client, "image=busybox") == ["b", "a"]
    assert listed(client, "node=n1") == ["b", "a"]
    assert listed(client, "node=nowhere") == []
    assert listed(client, "meta.team=x") == ["c", "a"]
    assert listed(client, "meta.team=x&meta.a.b=1") == ["a"]
    assert listed(client, "meta.0=zero") == ["c"]
    assert listed(client, "meta.team=X") == []
    assert listed(client, "status=completed&image=busybox&node=n1&meta.team=y") == ["b"]
    assert listed(client, "status=running&image=alpine") == []


def test_created_after_and_before_are_exclusive(client: Client) -> None:
    for name, offset in (("a", -1), ("b", 0), ("c", 1)):
        store_at(NOON + timedelta(milliseconds=offset), name)
    assert listed(client, "createdAfter=2026-01-31T12:00:00Z") == ["c"]
    assert listed(client, "createdBefore=2026-01-31T12:00:00Z") == ["a"]
    assert listed(client, "createdBefore=2026-01-31T12:00:00.0001Z") == ["b", "a"]
    assert listed(client, "createdAfter=2026-01-31T13:59:59.998%2B02:00&createdBefore=2026-01-31T12:00:00.001z") == ["b", "a"]
    assert listed(client, "createdAfter=0001-01-01T00:00:00Z&createdBefore=9999-12-31T23:59:59Z") == ["c", "b", "a"]
    assert listed(client, "createdAfter=9999-12-31T23:59:59.999999999Z") == []


def test_a_page_reads_a_bounded_number_of_rows(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given one match that is older than more rows than a page may read, whichever of the filters is read from its index
    monkeypatch.setattr(limits, "ROWS_READ", 4)
    monkeypatch.setattr(job_list, "_FIRST_ROWS", 3)
    store("wanted", image="a", status=State.RUNNING)
    for number in range(9):
        store(f"image{number}", image="a")
        store(f"status{number}", image="b", status=State.RUNNING)
    # I expect empty pages with cursors, and then the match
    assert all_pages(client, "limit=1&image=a&status=running") == [[], [], ["wanted"]]


def test_a_job_whose_status_changes_during_a_scan_is_not_listed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given two jobs that match, one of which ends while its page is read
    for name in ("ends", "stays"):
        store(name, status=State.RUNNING)
    scan = job_list._find_matching

    def end_one(*args: Any) -> Any:
        found = scan(*args)
        Job.objects.filter(id="ends").update(status=State.COMPLETED)
        return found

    monkeypatch.setattr(job_list, "_find_matching", end_one)

    # I expect the other one only
    assert listed(client, "status=running&image=alpine") == ["stays"]


def test_the_number_of_queries_does_not_grow_with_the_page(client: Client, django_assert_num_queries: Any) -> None:
    node = make_node("n1")
    for number in range(20):
        store(f"j{number}", node=node)
    with django_assert_num_queries(1):
        assert len(listed(client)) == 20


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=1.5", "limit"),
        ("limit=+1", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("status=done", "status"),
        ("status=Running", "status"),
        ("cursor=", "cursor"),
        ("cursor=x", "cursor"),
        ("cursor=AAAAAAAAAAAAAAAAAAAAAA%3D%3D", "cursor"),
        ("cursor=%C3%A4", "cursor"),
        ("createdAfter=2026-01-31", "createdAfter"),
        ("createdAfter=2026-01-31T12:00:00", "createdAfter"),
        ("createdAfter=2026-01-31T12:00:00+02:00", "createdAfter"),
        ("createdBefore=2026-02-31T12:00:00Z", "createdBefore"),
        ("createdBefore=2026-01-31T12:00:60Z", "createdBefore"),
        ("createdBefore=2026-01-31T12:00:00%2B99:00", "createdBefore"),
        ("meta=x", "meta"),
        ("meta.a=1&meta.a=2", "meta.a"),
        ("sort=id", "sort"),
    ],
)
def test_invalid_parameters_are_refused(client: Client, query: str, field: str) -> None:
    expect_error(client.get(f"/v1/jobs?{query}"), 400, field)


def test_other_methods_are_405(client: Client) -> None:
    answer = client.put("/v1/jobs")
    expect_error(answer, 405)
    assert answer["Allow"] == "GET, HEAD, POST"
