"""Limits of namespaces while many clients post at once to several processes, and a worker is killed."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.faults.system import SystemOn
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.production, pytest.mark.any_engine, pytest.mark.timeout(300)]

POSTS = 100
MOST = 10
USE = """
SELECT count(*) FILTER (WHERE reserved), count(*) FILTER (WHERE status = 'running'), count(started_at)
FROM jobs_job WHERE namespace = 'ten'
"""


@pytest.mark.short
def test_of_a_hundred_jobs_posted_at_once_ten_run(system_on: SystemOn) -> None:
    with system_on(os.environ["DOCKER_HOST"], WEB_CONCURRENCY="2") as system:
        service = system.service
        # Given a namespace that may run ten jobs, one that may have ten undecided, two web processes and three workers
        for name, limit in (("ten", "max_running"), ("few", "max_undecided")):
            service.query(f"INSERT INTO access_namespace (name, created_at, {limit}) VALUES (%s, now(), %s)", name, MOST)
        system.start("worker-1", "worker-2", "worker-3")

        # When 100 clients of each post at once
        def post(namespace: str, job_id: str, **members: Any) -> int:
            job = {"id": job_id, "image": "alpine:latest", "command": ["sleep", "600"], "memory": 6, **members}
            return requests.post(f"{service.url}/v1/jobs?namespace={namespace}", json=job, timeout=60).status_code

        def post_both(number: int) -> list[tuple[str, int]]:
            job_id = f"job-{number}"  # the same in both namespaces
            return [("ten", post("ten", job_id, cpu=0.01)), ("few", post("few", job_id, cpu=64))]

        with ThreadPoolExecutor(POSTS) as clients:
            answers = Counter(answer for both in clients.map(post_both, range(POSTS)) for answer in both)

        # I expect all of one to be accepted, and ten of the other, until one of these is decided
        assert answers == {("ten", 202): POSTS, ("few", 202): MOST, ("few", 429): POSTS - MOST}
        [[undecided]] = service.query("SELECT id FROM jobs_job WHERE namespace = 'few' LIMIT 1")
        assert service.request("DELETE", f"/v1/jobs/{undecided}?namespace=few").status_code == 204
        assert [post("few", "next", cpu=64), post("few", "after-next", cpu=64)] == [202, 429]

        # and ten to run, never more
        def has_started(number: int) -> bool:
            [(reserved, running, started)] = service.query(USE)
            assert reserved <= MOST
            return bool(running == MOST and started == number)

        wait_for(lambda: has_started(MOST), 120, "ten jobs to run", step=0.1)
        [[waiting]] = service.query("SELECT id FROM jobs_job WHERE namespace = 'ten' AND NOT reserved LIMIT 1")
        job = service.request("GET", f"/v1/jobs/{waiting}?namespace=ten").json()
        assert job["waiting"] == "its namespace, which may use 10 jobs at once"

        # and the next whenever one ends, also while the processes of the others take over from one that was killed
        for number in (1, 2, 3):
            [[running]] = service.query("SELECT id FROM jobs_job WHERE namespace = 'ten' AND status = 'running' LIMIT 1")
            service.request("DELETE", f"/v1/jobs/{running}?namespace=ten")
            if number == 2:
                service.kill("worker-1")
            wait_for(lambda number=number: has_started(MOST + number), 60, "the next job to start", step=0.1)
