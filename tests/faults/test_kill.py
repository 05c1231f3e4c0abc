"""kill -9 of everything in the middle of many jobs: nothing is lost, repeated or out of order."""

import time
from collections import defaultdict
from typing import Any

import pytest

from tests.receiver import Receiver
from tests.services import Service
from tests.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.production, pytest.mark.timeout(300)]

JOBS = 20
LINES = 120
COMMAND = f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; sleep 0.1; done; exit 7"
EXPECTED = [f"line {number}" for number in range(1, LINES + 1)]


def test_every_process_killed_in_the_middle_of_twenty_jobs(service: Service) -> None:
    with Receiver() as receiver:
        # Given 20 jobs that print a numbered line each 100 ms, all of them running and printing
        service.start_all()
        jobs = [
            service.post_job(command=COMMAND, cpu=0.05, memory=16, callback={"url": receiver.url, "key": "key"})
            for _ in range(JOBS)
        ]
        for job_id in jobs:
            service.wait_status(job_id, "running")
        wait_for(lambda: all(logged(receiver, job_id) for job_id in jobs), 60, "lines of every job")

        # When every process of ours is killed, and all are started again 5 s later
        killed = list(service.processes)
        for name in killed:
            service.kill(name)
        down_until = time.monotonic() + 5
        wait_for(lambda: time.monotonic() >= down_until, 10)
        for name in killed:
            service.restart(name)

        # I expect every job to end as it would have
        for job_id in jobs:
            job = service.wait_complete(job_id, timeout=120)
            assert (job["status"], job["reason"], job["exitCode"]) == ("failed", "exit_code", 7), job

        # And every line once and in order, in the stored log and in the log events; one exit and one complete event
        for job_id in jobs:
            assert service.request("GET", f"/v1/jobs/{job_id}/logs").text.splitlines() == EXPECTED
        wait_for(lambda: all("complete" in types(receiver, job_id) for job_id in jobs), 60, "all complete events")
        for job_id in jobs:
            assert logged(receiver, job_id) == EXPECTED
            told = types(receiver, job_id)
            assert told == ["start", *["log"] * (len(told) - 3), "exit", "complete"]

        # And nothing to be left of them
        assert service.query("SELECT cpu_millis_reserved, memory_mib_reserved FROM jobs_node") == [(0, 0)]


def deliveries(receiver: Receiver, job_id: str) -> list[dict[str, Any]]:
    """The job's events in the order of their first arrival. A repeated delivery must be the very same event."""
    first: dict[str, dict[str, Any]] = {}
    sequences: defaultdict[int, set[str]] = defaultdict(set)
    for received in list(receiver.requests):
        event = received.json
        if event["subject"] == job_id:
            assert first.setdefault(event["id"], event) == event
            sequences[event["jobsequence"]].add(event["id"])
    assert all(len(ids) == 1 for ids in sequences.values())
    events = list(first.values())
    assert [event["jobsequence"] for event in events] == list(range(1, len(events) + 1))
    return events


def types(receiver: Receiver, job_id: str) -> list[str]:
    return [event["type"].removeprefix("orchestrator.job.") for event in deliveries(receiver, job_id)]


def logged(receiver: Receiver, job_id: str) -> list[str]:
    events = [event for event in deliveries(receiver, job_id) if event["type"] == "orchestrator.job.log"]
    return [line for event in events for line in event["data"]["lines"]]
