"""What clients notice of the limits of their namespace: 429, and what a job waits for."""

import threading

import pytest
from django.db import connection
from django.test import Client

from jobs import services
from jobs.api.waiting_reason import waiting_for
from jobs.errors import TooManyUndecided
from jobs.models import Job
from jobs.running import claiming
from tests.helpers.api_calls import expect_error, post_body
from tests.helpers.factories import make_job, make_node, make_worker
from tests.helpers.keys import make_namespace

BODY = '{"image": "alpine"}'


@pytest.mark.django_db
def test_one_undecided_job_too_many_is_429_until_one_is_decided(client: Client) -> None:
    # Given a namespace that has as many undecided jobs as it may have, and another
    make_namespace("default", max_undecided=2)
    make_namespace("other")
    for job_id in ("a", "b"):
        assert post_body(client, f'{{"id": "{job_id}", "image": "alpine"}}').status_code == 202

    # When one more is posted, I expect to be told when to try again, and nothing to be stored
    answer = post_body(client, BODY)
    assert expect_error(answer, 429) == "the namespace has reached its limit of undecided jobs, which is 2"
    assert int(answer["Retry-After"]) > 0
    assert Job.objects.count() == 2
    assert client.post("/v1/jobs?namespace=other", data=BODY, content_type="application/json").status_code == 202

    # and it to be accepted once one is decided
    client.delete("/v1/jobs/a")
    assert post_body(client, BODY).status_code == 202


@pytest.mark.django_db(transaction=True)
def test_concurrent_posts_stay_within_the_limit() -> None:
    make_namespace("a", max_undecided=5)
    refused = []

    def post() -> None:
        for _ in range(3):
            try:
                make_job(namespace="a", callback=None)
            except TooManyUndecided:
                refused.append(1)
        connection.close()

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (Job.objects.count(), len(refused)) == (5, 7)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ({"max_running": 1}, "1 job"),
        ({"max_cpu_millis": 1500}, "1.5 cpus"),
        ({"max_memory_mib": 100}, "100 MiB of memory"),
    ],
)
def test_a_job_says_that_its_namespace_is_at_its_limit(limit: dict[str, int], text: str) -> None:
    node = make_node()
    make_namespace("a", **limit)
    make_job(namespace="a")
    second = make_job(namespace="a")
    assert waiting_for(second) == "1 job ahead"
    claiming.claim(node.pk, make_worker(node))
    assert waiting_for(second) == f"its namespace, which may use {text} at once"
    services.cancel(second.id, "a")


@pytest.mark.django_db
def test_a_job_that_its_namespace_can_never_start_says_so() -> None:
    make_node()
    make_namespace("a", max_cpu_millis=1000)
    assert waiting_for(make_job(namespace="a", cpu_millis=2000)) == "its namespace, which may use 1 cpus at once"
