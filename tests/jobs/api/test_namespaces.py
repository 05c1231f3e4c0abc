"""A key sees and changes what belongs to its namespace, and nothing else."""

import json
from base64 import urlsafe_b64decode
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest
import schemathesis
from django.db import transaction
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given, settings, strategies

from callbacks import outbox
from callbacks.models import Destination, Event, Subscription
from jobs import services
from jobs.api import job_list
from jobs.models import Job
from orchestrator_site.base.access.models import ApiKey
from orchestrator_site.base.http.pauses import Pauses, Places
from tests.helpers.api_calls import Answer, configured, expect_error, store_lines
from tests.helpers.described_api import described_api
from tests.helpers.factories import job_spec, make_node, subscribe
from tests.helpers.keys import bearer, make_key
from tests.helpers.log_streams import end_log
from tests.site.browsers.test_openapi import OPERATIONS

pytestmark = pytest.mark.django_db
SECRET = "canary-of-b"  # in whatever the other namespace has


@pytest.fixture(autouse=True)
def keys_required() -> Any:
    with configured(api_auth_required=True, api_key_file=None):
        yield


@pytest.fixture
def key_a() -> str:
    return make_key("team-a")


@pytest.fixture
def key_b() -> str:
    return make_key("team-b")


def post(client: Client, key: str, query: str = "", **members: Any) -> Answer:
    body = json.dumps({"image": "alpine", **members})
    return client.post(f"/v1/jobs{query}", data=body, content_type="application/json", headers=bearer(key))


def ids(client: Client, key: str, query: str = "") -> list[str]:
    return [job["id"] for job in client.get(f"/v1/jobs{query}", headers=bearer(key)).json()["jobs"]]


def test_an_id_may_be_used_in_each_namespace(client: Client, key_a: str, key_b: str) -> None:
    # Given a job with the same id in two namespaces
    for key, image in ((key_a, "a"), (key_b, "b")):
        assert post(client, key, id="same", image=image).status_code == 202

    # I expect each key to get its own, and an id that is taken to be one in its namespace
    assert [client.get("/v1/jobs/same", headers=bearer(key)).json()["image"] for key in (key_a, key_b)] == ["a", "b"]
    expect_error(post(client, key_a, id="same"), 409, "id")
    client.delete("/v1/jobs/same", headers=bearer(key_a))
    assert list(Job.objects.order_by("namespace").values_list("namespace", "status")) == [
        ("team-a", "cancelled"),
        ("team-b", "accepted"),
    ]


def test_a_key_of_a_namespace_is_refused_in_another_whether_it_exists_or_not(client: Client, key_a: str, key_b: str) -> None:
    sentences = {
        expect_error(client.get(f"/v1/jobs?namespace={name}", headers=bearer(key_a)), 403, "namespace")
        for name in ("team-b", "x")
    }
    assert len(sentences) == 1
    expect_error(post(client, key_a, "?namespace=team-b"), 403, "namespace")
    assert client.get("/v1/jobs?namespace=team-a", headers=bearer(key_a)).status_code == 200
    assert not Job.objects.exists()


def test_a_key_of_all_namespaces_says_which(client: Client, key_a: str) -> None:
    # Given jobs that a key of all namespaces has posted
    every = make_key(None)
    assert post(client, every, "?namespace=team-a", id="one")["Location"] == "/v1/jobs/one?namespace=team-a"
    assert post(client, every, id="two")["Location"] == "/v1/jobs/two"

    # I expect lists of all or of one, and jobs where they are looked for
    assert ids(client, every) == ["two", "one"]
    assert ids(client, every, "?namespace=team-a") == ids(client, key_a) == ["one"]
    assert client.get("/v1/jobs/one?namespace=team-a", headers=bearer(every)).json()["namespace"] == "team-a"
    expect_error(client.get("/v1/jobs/one", headers=bearer(every)), 404)
    expect_error(post(client, every, "?namespace=nowhere"), 400, "namespace")
    expect_error(client.get("/v1/jobs?namespace=No_Name", headers=bearer(every)), 400, "namespace")


def test_the_keys_in_the_file_belong_to_default(client: Client, key_a: str, tmp_path: Any) -> None:
    (tmp_path / "keys").write_text("from-the-file\n")
    with configured(api_auth_required=True, api_key_file=tmp_path / "keys"):
        assert post(client, "from-the-file", id="mine").status_code == 202
        post(client, key_a, id="other")
        assert ids(client, "from-the-file") == ["mine"]
        expect_error(client.get("/v1/jobs?namespace=team-a", headers=bearer("from-the-file")), 403, "namespace")


def test_events_count_towards_the_key_that_posted_their_job(client: Client, key_a: str, tmp_path: Any) -> None:
    # Given a file with two keys
    (tmp_path / "keys").write_text("guessable\nother\n")

    def owners(job_id: str, key: str) -> tuple[str, str]:
        post(client, key, id=job_id, callback={"url": "http://h.example/"})
        row = Subscription.objects.get(subject=job_id)
        return row.client, row.owner

    with configured(api_auth_required=True, api_key_file=tmp_path / "keys"):
        # When jobs are posted with these and one from the admin, I expect the names of the keys to be stored
        assert owners("a", key_a) == (key_a[:13], "team-a")
        first, second = owners("b", "guessable"), owners("c", "other")
        assert (first[1], second[1]) == ("default", "default")
        assert first[0] != second[0]
        assert owners("d", "guessable") == first
        assert first[0].startswith("file_")
        # And not the digest of a key: who guesses the key could compute it
        assert sha256(b"guessable").hexdigest()[:8] not in first[0]

        # And a revoked key to remain named: its events are still sent
        ApiKey.objects.update(revoked_at=timezone.now())
        assert Subscription.objects.get(subject="a").client == key_a[:13]
    with configured(api_auth_required=False):
        assert owners("e", "") == ("", "default")


def test_what_is_shared_is_for_keys_of_all_namespaces_once_there_are_several(client: Client) -> None:
    only = make_key("default")
    assert client.get("/v1/destinations", headers=bearer(only)).status_code == 200
    make_key("team-a")
    expect_error(client.get("/v1/destinations", headers=bearer(only)), 403)
    assert client.get("/v1/destinations", headers=bearer(make_key(None))).status_code == 200


def test_a_namespace_leaves_others_places_to_follow_logs(client: Client, key_a: str, key_b: str) -> None:
    # Given a job of each namespace, and two places
    places = Places(2)

    def follow(key: str, query: str = "") -> int:
        environ: dict[str, Any] = {}
        Pauses(places, lambda _: None).add_to(environ)
        headers = bearer(key) | {"Accept": "text/event-stream"}
        return client.get(f"/v1/jobs/mine/logs{query}", headers=headers, **environ).status_code  # not read

    for key in (key_a, key_b):
        post(client, key, id="mine")

    # I expect one to get one of them, and the other the other
    assert [follow(key_a), follow(key_a), follow(key_b)] == [200, 503, 200]

    # And a key of all namespaces to get all places
    places = Places(2)
    assert [follow(make_key(None), "?namespace=team-a") for _ in range(3)] == [200, 200, 503]


def test_a_job_does_not_tell_how_many_of_another_namespace_wait(client: Client, key_a: str, key_b: str) -> None:
    make_node()
    post(client, key_b)
    post(client, key_a, id="mine")
    assert client.get("/v1/jobs/mine", headers=bearer(key_a)).json()["waiting"] == "free capacity on a node"


@given(uuid=strategies.uuids())
def test_a_cursor_tells_nothing_of_the_job_at_which_it_points(uuid: UUID) -> None:
    cursor = job_list.encode_cursor(uuid)
    assert job_list.decode_cursor(cursor) == uuid
    sealed, of_the_next = (urlsafe_b64decode(text + "==") for text in (cursor, job_list.encode_cursor(UUID(int=uuid.int ^ 1))))
    assert not any(part in sealed for part in (uuid.bytes[:6], uuid.bytes[6:]))
    assert sealed[:15] != of_the_next[:15]


def job_of_b() -> Job:
    """Store a job of the other namespace, with a log that has ended and a dead event, all of which have the canary."""
    job = services.create(job_spec(id=SECRET, image=SECRET, meta={"m": SECRET}, callback=None), "team-b")
    store_lines(job, SECRET)
    end_log(job)
    subscribe(job.uuid, job.id, f"https://{SECRET}.example/")
    outbox.publish(job.uuid, "orchestrator.job.start", SECRET, {"secret": SECRET})
    Event.objects.update(state="dead")
    return job


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("path", "method"), [operation for operation in OPERATIONS if operation[0].startswith("/v1/")])
def test_no_operation_of_the_document_shows_or_changes_what_another_namespace_has(
    client: Client, path: str, method: str, key_a: str, key_b: str
) -> None:
    # Given a job of each namespace
    with transaction.atomic():
        job = job_of_b()
    post(client, key_a, id="mine")
    event = Event.objects.get()
    destination = event.subscription.destination_id
    known = {"job_id": SECRET, "event_id": str(event.pk), "destination_id": destination}

    def state() -> list[Any]:
        rows = (Job.objects.filter(pk=job.pk), Event.objects.all(), Destination.objects.filter(pk=destination))
        return [list(found.values()) for found in rows]

    before = state()

    # When requests are sent that fit the document, for what the other namespace has
    @given(case=described_api()[path][method].as_strategy())
    @settings(max_examples=4, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def send(case: schemathesis.Case) -> None:
        case.path_parameters = {name: known[name] for name in case.path_parameters or {}}
        for name in ("namespace", "cursor"):
            (case.query or {}).pop(name, None)
        answer = case.call(headers={"Host": "localhost", **bearer(key_a)})
        assert answer.status_code != 401
        text = answer.text + str(answer.headers)
        # I expect answers without a trace of it
        assert SECRET not in text
        assert str(job.uuid) not in text

    send()
    assert state() == before
    if "{" in path:
        query = "?since=2026-01-01T00:00:00Z" if path.endswith("destination_id}/redeliver") else ""
        address = path.format(**known) + query
        expect_error(getattr(client, method)(address, headers=bearer(key_a)), 403 if "destination" in path else 404)
        assert getattr(client, method)(address, headers=bearer(make_key(None))).status_code != 403
