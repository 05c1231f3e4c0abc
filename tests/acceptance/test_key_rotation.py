"""ENCRYPTION_KEYS are changed as docs/operations.md says, while jobs are posted and run."""

import subprocess
import sys
from contextlib import closing

import psycopg
import pytest
from environment import random_key

from orchestrator_site.base.db.encryption import Keys
from tests.helpers.receiver import Receiver
from tests.helpers.service_processes import ROOT, Service
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.any_engine, pytest.mark.production, pytest.mark.timeout(300)]


def start_rotation(service: Service) -> subprocess.Popen[str]:
    command = [sys.executable, "manage.py", "rotate_keys"]
    return subprocess.Popen(
        command, cwd=ROOT, env=service.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def marks(service: Service) -> dict[str, str]:
    """Return the mark in the environment of each job."""
    return {job: str(mark) for job, mark in service.query("SELECT id, left(environment, 12) FROM jobs_job")}


def test_keys_are_changed_while_jobs_run(service: Service) -> None:
    old, new = service.environment["ENCRYPTION_KEYS"], random_key()
    old_mark, new_mark = Keys((old,)).mark, Keys((new,)).mark
    with Receiver() as receiver:

        def post(**members: int) -> str:
            return service.post_job(
                command='test "$TOKEN" = a-secret && cat in',
                environment={"TOKEN": "a-secret"},
                inputs=[{"type": "file", "path": "in", "content": "another"}],
                callback={"url": f"{receiver.url}/hook?a-secret", "key": "a-key", "events": ["orchestrator.job.exit"]},
                **members,
            )

        # Given a job that has run with the old key, and others that no node can hold yet
        service.start_all()
        complete, *waiting = post(), *(post(memory=65536) for _ in range(3))
        service.wait_complete(complete)

        # When all processes learn the new key, and then one begins to encrypt with it, I expect the others to be able to follow
        service.environment["ENCRYPTION_KEYS"] = f"{old},{new}"
        for name in list(service.processes):
            service.restart(name)
        service.environment["ENCRYPTION_KEYS"] = f"{new},{old}"
        service.restart("web")
        between = post()
        assert service.wait_complete(between)["status"] == "completed"
        for name in ("deliver", "relay", "worker"):
            service.restart(name)
        assert {marks(service)[job] for job in (complete, *waiting)} == {old_mark}
        assert marks(service)[between] == new_mark

        # When what the old key has encrypted is encrypted again, and that is killed in the middle
        with closing(psycopg.connect(service.database_url)) as connection:
            connection.execute("SELECT 1 FROM jobs_job WHERE id = %s FOR UPDATE", [waiting[1]])
            rotation = start_rotation(service)
            wait_for(lambda: marks(service)[waiting[0]] == new_mark, 60, "the first rows to be encrypted again")
            meanwhile = post()
            assert rotation.poll() is None
            rotation.kill()
            rotation.communicate()
        assert marks(service)[waiting[1]] == old_mark
        assert service.wait_complete(meanwhile)["status"] == "completed"

        # And then continued
        rotation = start_rotation(service)
        said, _ = rotation.communicate(timeout=60)
        assert rotation.returncode == 0, said
        assert "jobs_job: 6 rows, 1 encrypted again" in said
        assert "can be removed" in said

        # I expect the old key not to be needed any more
        service.environment["ENCRYPTION_KEYS"] = new
        for name in ("web", "deliver", "relay"):
            service.restart(name)
        service.kill("worker")
        service.start("worker", NODE_MEMORY="128GiB")
        for job in waiting:
            assert service.wait_complete(job)["status"] == "completed"
            assert service.get_log(job) == ["another"]
        service.request("POST", f"/v1/jobs/{complete}/events/{receiver.requests[0].json['id']}/redeliver").raise_for_status()
        wait_for(
            lambda: sum(event.json["subject"] == complete for event in receiver.requests) == 2, 60, "an event to be sent again"
        )
        wait_for(
            lambda: {event["subject"] for event in receiver.events} >= {complete, between, meanwhile, *waiting}, 60, "all events"
        )
        for received in receiver.requests:
            received.verify("a-key")
            assert received.path == "/hook?a-secret"
