"""Clocks of the processes jump: stored times are those of the database, and waits use the monotonic clock."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.receiver import Receiver
from tests.helpers.service_processes import Service
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.production, pytest.mark.long, pytest.mark.timeout(120)]

PROCESSES = ("relay", "worker", "deliver", "web")
RETENTION = "30m"  # less than any of these jumps
JUMPS = ("+1h", "-1h", "+400d")
STORY = ["start", "log", "exit", "complete"]
SOON = 15


def test_clocks_that_jump(service: Service, tmp_path: Path) -> None:
    # Given a service with correct clocks, and a job that has ended
    clock = tmp_path / "clock"
    jump(clock, "+0")
    variables = preloaded(clock)
    for process in PROCESSES:
        service.start(process, JOB_RETENTION=RETENTION, **variables)
    with Receiver() as receiver:
        jobs = [post(service, receiver, "echo one")]
        wait_for(lambda: story(receiver, jobs[0]) == STORY, SOON, "its events")

        # When all clocks jump back and forth while another job runs, by an hour and by more than a year
        for shift in JUMPS:
            running = post(service, receiver, "echo one; sleep 1")
            service.wait_status(running, "running")
            jump(clock, shift)
            waiting = post(service, receiver, "echo one")
            jobs += [running, waiting]

            # I expect both to complete, and their events to arrive soon
            for job in (running, waiting):
                assert service.wait_complete(job, SOON)["status"] == "completed"
            wait_for(lambda told=(running, waiting): all(story(receiver, job) == STORY for job in told), SOON, "their events")

            # And no job to be deleted except one that ended long ago by the database's clock
            old = jobs.pop(0)
            service.query("UPDATE jobs_job SET completed_at = completed_at - interval '31 minutes' WHERE id = %s", old)
            wait_for(lambda gone=old: service.request("GET", f"/v1/jobs/{gone}").status_code == 404, SOON, f"{old} to be gone")
            assert {id for (id,) in service.query("SELECT id FROM jobs_job")} == set(jobs)

    # And each event to have been sent once, and each job to have run once, by a worker that was never declared dead
    assert len({received.json["id"] for received in receiver.requests}) == len(receiver.requests)
    assert set(service.query("SELECT claims FROM jobs_job")) == {(1,)}
    assert "declared dead" not in service.log("worker")


# libfaketime breaks sleeps until a time of a clock that it does not fake, which is how Python sleeps.
SLEEP = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and None\n"


def preloaded(clock: Path) -> dict[str, str]:
    """Return the variables for a process whose clock this file shifts, except the monotonic clock, which cannot be set."""
    library = subprocess.run(["faketime", "-m", "-f", "+0", "printenv", "LD_PRELOAD"], capture_output=True, text=True, check=True)
    clock.with_name("sitecustomize.py").write_text(SLEEP)
    return {
        "PYTHONPATH": str(clock.parent),
        "LD_PRELOAD": library.stdout.strip(),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def jump(clock: Path, shift: str) -> None:
    """Shift the clock, by replacing the file in one step."""
    fresh = clock.with_suffix(".new")
    fresh.write_text(shift)
    fresh.rename(clock)


def post(service: Service, receiver: Receiver, command: str) -> str:
    callback: dict[str, Any] = {"url": receiver.url, "key": "key"}
    return service.post_job(command=command, cpu=0.05, memory=16, callback=callback)


def story(receiver: Receiver, job: str) -> list[str]:
    return [event["type"].removeprefix("orchestrator.job.") for event in receiver.events if event["subject"] == job]
