"""GET /v1/jobs/<id>."""

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from jobs.models import Job
from jobs.states import Reason, State
from orchestrator_site.base.http import long_polls
from tests.helpers.api_calls import Answer, expect_error, post_job
from tests.helpers.factories import make_job, make_node
from tests.helpers.waiting import wait_for

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC)
SLOTS = long_polls.slots._initial_value


def update(job: Job, **values: Any) -> None:
    Job.objects.filter(pk=job.pk).update(**values)


@pytest.mark.django_db
class TestGet:
    def test_an_accepted_job_says_what_it_waits_for(self, client: Client) -> None:
        # Given a job and no node
        post_job(client, id="a", meta={"team": "x"}, cpu=0.5, memory=64)
        # When I get it
        answer = client.get("/v1/jobs/a")
        # I expect what is known, and what it waits for
        assert answer.status_code == 200
        body = answer.json()
        assert datetime.fromisoformat(body.pop("createdAt")) <= timezone.now()
        assert body.pop("waiting")
        assert body == {
            "id": "a",
            "namespace": "default",
            "status": "accepted",
            "image": "alpine:latest",
            "meta": {"team": "x"},
            "cpu": 0.5,
            "memory": 64,
            "timeoutSeconds": 1800,
            "inputs": [],
            "outputs": [],
        }

    def test_a_job_too_large_for_the_nodes_says_so(self, client: Client) -> None:
        make_node(cpus=2)
        post_job(client, id="a", cpu=64)
        assert client.get("/v1/jobs/a").json()["waiting"] == "no node with 64 cpus; the largest has 2"

    def test_a_failed_job_shows_all_that_is_known(self, client: Client) -> None:
        job = make_job(id="a")
        update(
            job,
            status=State.FAILED,
            reason=Reason.EXIT_CODE,
            error="it said no",
            exit_code=0,
            created_at=MOMENT,
            started_at=MOMENT,
            finished_at=MOMENT,
            completed_at=MOMENT,
            node=make_node("n1"),
        )
        body = client.get("/v1/jobs/a").json()
        for name in ("createdAt", "startedAt", "finishedAt", "completedAt"):
            assert body[name] == "2026-01-02T03:04:05.678Z"
        assert (body["status"], body["reason"], body["error"]) == ("failed", "exit_code", "it said no")
        assert (body["exitCode"], body["node"]) == (0, "n1")
        assert "waiting" not in body

    def test_usage_is_shown_as_far_as_it_is_known(self, client: Client) -> None:
        # Given a running job
        job = make_job(id="a")
        update(job, status=State.RUNNING, started_at=MOMENT, input_bytes=3, log_bytes=5)
        # I expect what is known by then
        assert client.get("/v1/jobs/a").json()["usage"] == {"inputBytes": 3, "logBytes": 5}
        # When it is complete, I expect all of it, and none in the list
        update(job, status=State.COMPLETED, completed_at=MOMENT, cpu_seconds=0.25, peak_memory_bytes=4096, output_bytes=7)
        assert client.get("/v1/jobs/a").json()["usage"] == {
            "cpuSeconds": 0.25,
            "peakMemoryBytes": 4096,
            "inputBytes": 3,
            "outputBytes": 7,
            "logBytes": 5,
        }
        assert "usage" not in client.get("/v1/jobs").json()["jobs"][0]

    def test_a_job_that_never_ran_has_no_usage(self, client: Client) -> None:
        update(make_job(id="a"), status=State.FAILED, completed_at=MOMENT)
        assert "usage" not in client.get("/v1/jobs/a").json()

    def test_inputs_and_outputs_are_shown(self, client: Client) -> None:
        post_job(
            client,
            id="a",
            inputs=[{"type": "file", "path": "a", "content": "x"}, {"type": "download", "path": "b", "url": "http://h/"}],
            outputs=[{"id": "mine", "type": "event", "path": "c"}],
        )
        job = Job.objects.get(id="a")
        job.inputs.filter(name="input-1").update(status="success", bytes=1)
        job.inputs.filter(name="input-2").update(status="failed", error="the server answered 404")
        body = client.get("/v1/jobs/a").json()
        assert body["inputs"] == [
            {"id": "input-1", "type": "file", "status": "success", "bytes": 1},
            {"id": "input-2", "type": "download", "status": "failed", "error": "the server answered 404"},
        ]
        assert body["outputs"] == [{"id": "mine", "type": "event", "status": "pending"}]

    @pytest.mark.parametrize("path", ["/v1/jobs/a", "/v1/jobs/a?wait=0", "/v1/jobs/a/logs", "/v1/jobs"])
    @pytest.mark.parametrize("accept", ["*/*", "application/json"])
    def test_no_secret_is_shown(self, client: Client, path: str, accept: str) -> None:
        # Given a job with a secret in each member that may hold one
        canary = "canary-9d2e"
        answer = post_job(
            client,
            id="a",
            environment={"TOKEN": canary},
            inputs=[
                {"type": "download", "path": "a", "url": f"http://{canary}@h/?sig={canary}", "headers": {"X-Key": canary}},
                {"type": "file", "path": "b", "content": canary},
            ],
            outputs=[{"type": "upload", "path": "c", "url": f"http://h/?sig={canary}", "headers": {"X-Key": canary}}],
            callback={"url": f"http://h/?sig={canary}", "key": canary},
        )
        assert answer.status_code == 202
        # I expect it nowhere in the answer
        answer = client.get(path, headers={"Accept": accept})
        assert answer.status_code == 200
        assert canary not in answer.getvalue().decode() + str(answer.headers)

    @pytest.mark.parametrize("path", ["nope", "nope/logs", "-a", "a" * 129, "%00", "a%0Ab", "%C3%A4", "a/b", ""])
    def test_unknown_jobs_are_404(self, client: Client, path: str) -> None:
        expect_error(client.get(f"/v1/jobs/{path}"), 404)

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("wait=31", "wait"),
            ("wait=-1", "wait"),
            ("wait=", "wait"),
            ("wait=x", "wait"),
            ("wait=1e1", "wait"),
            ("wait=%D9%A1", "wait"),
            ("wait=1&wait=1", "wait"),
            ("wait=%00", "wait"),
            ("wait=%FF", "wait"),
            ("Wait=1", "Wait"),
            ("%FF=1", "%FF"),
            ("x", "x"),
        ],
    )
    def test_invalid_parameters_are_refused(self, client: Client, query: str, field: str) -> None:
        expect_error(client.get(f"/v1/jobs/a?{query}"), 400, field)

    def test_too_many_parameters_are_refused(self, client: Client) -> None:
        expect_error(client.get("/v1/jobs?" + "&".join(f"meta.a{n}=" for n in range(101))), 400)

    @pytest.mark.parametrize("method", ["put", "patch", "options", "post", "trace"])
    def test_other_methods_are_405(self, client: Client, method: str) -> None:
        answer = getattr(client, method)("/v1/jobs/a")
        expect_error(answer, 405)
        assert answer["Allow"] == "GET, HEAD, DELETE"

    def test_head_has_no_body(self, client: Client) -> None:
        make_job(id="a")
        answer = client.head("/v1/jobs/a")
        assert (answer.status_code, answer.content) == (200, b"")


class _WaitingClient(threading.Thread):
    """A client that waits for its answer."""

    def __init__(self, path: str) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.answer: Answer = None

    def run(self) -> None:
        try:
            self.answer = Client().get(self.path)
        finally:
            connection.close()


def free_slots() -> int:
    return long_polls.slots._value


@pytest.mark.django_db(transaction=True)
class TestWaiting:
    def test_the_answer_comes_when_the_job_is_decided(self) -> None:
        # Given a client that waits for a job
        job = make_job(id="a")
        client = _WaitingClient("/v1/jobs/a?wait=30")
        client.start()
        wait_for(lambda: free_slots() == SLOTS - 1, what="the client to wait")
        # When the job runs, I expect the client to wait on; when it is decided, I expect the answer
        update(job, status=State.RUNNING)
        assert client.is_alive()
        update(job, status=State.COMPLETED, exit_code=0)
        client.join(20)
        assert client.answer.json()["status"] == "completed"
        assert free_slots() == SLOTS

    def test_the_answer_comes_when_the_time_is_up(self, client: Client) -> None:
        make_job(id="a")
        assert client.get("/v1/jobs/a?wait=0.1").json()["status"] == "accepted"
        assert free_slots() == SLOTS

    def test_a_decided_job_is_answered_at_once(self, client: Client) -> None:
        update(make_job(id="a"), status=State.FAILED, reason=Reason.TIMEOUT)
        assert client.get("/v1/jobs/a?wait=30").json()["reason"] == "timeout"

    def test_a_job_that_is_deleted_during_the_wait_is_404(self) -> None:
        job = make_job(id="a")
        client = _WaitingClient("/v1/jobs/a?wait=30")
        client.start()
        wait_for(lambda: free_slots() == SLOTS - 1, what="the client to wait")
        Job.objects.filter(pk=job.pk).delete()
        client.join(20)
        expect_error(client.answer, 404)

    def test_requests_do_not_wait_if_half_of_the_threads_already_do(self, client: Client) -> None:
        # Given the maximum number of waiting clients
        make_job(id="a")
        for _ in range(SLOTS):
            assert long_polls.slots.acquire(blocking=False)
        try:
            # When another one wants to wait, I expect the present state
            assert client.get("/v1/jobs/a?wait=30").json()["status"] == "accepted"
        finally:
            for _ in range(SLOTS):
                long_polls.slots.release()
