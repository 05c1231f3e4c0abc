"""The database is restored from a backup, as docs/operations.md says: what becomes of the jobs since then."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.acceptance.conftest import embedded_installation
from tests.helpers.receiver import Receiver
from tests.helpers.service_processes import Service, administer, database_named
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.any_engine, pytest.mark.timeout(300)]

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
FOREVER = "sleep 600"


def back_up(service: Service, file: Path) -> None:
    subprocess.run(["pg_dump", "--format=custom", f"--file={file}", service.database_url], check=True, timeout=60)


def restore(service: Service, file: Path) -> None:
    """Replace the database by an empty one, and restore the backup into it."""
    name = urlsplit(service.database_url).path.removeprefix("/")
    administration = database_named(service.database_url, "postgres")
    administer(administration, "DROP DATABASE {name}", name=name)
    administer(administration, "CREATE DATABASE {name}", name=name)
    command = ["pg_restore", "--no-owner", "--exit-on-error", f"--dbname={service.database_url}", str(file)]
    subprocess.run(command, check=True, timeout=60)
    service.manage("migrate", "--noinput", env=service.environment)


@pytest.mark.production
@pytest.mark.skipif(shutil.which("pg_restore") is None, reason="pg_restore is not installed")
def test_the_service_continues_from_the_time_of_the_backup(service: Service, tmp_path: Path) -> None:
    with Receiver() as receiver:
        callback = {"url": receiver.url, "events": ["orchestrator.job.exit"]}

        def exits(job_id: str) -> list[dict[str, str]]:
            return [event for event in receiver.events if event["subject"] == job_id]

        # Given, in a backup, a job that is complete, two that run and two that wait for a worker
        service.start_all()
        complete = service.post_job(command="exit 3", callback=callback)
        service.wait_complete(complete)
        wait_for(lambda: exits(complete), 60, "its event")
        running, ending = (service.post_job(command=FOREVER, callback=callback) for _ in range(2))
        for job_id in (running, ending):
            service.wait_status(job_id, "running")
        service.terminate("worker")
        waiting = service.post_job(command="exit 0", callback=callback)
        starting = service.post_job(command=FOREVER)
        back_up(service, tmp_path / "backup")

        # And later one of them that ended, those that waited, and a new one
        service.start("worker")
        assert service.request("DELETE", f"/v1/jobs/{ending}").status_code == 204
        later = service.post_job(command=FOREVER)
        for job_id in (later, starting):
            service.wait_status(job_id, "running")
        started_at = service.get_job(starting)["startedAt"]
        for job_id in (ending, waiting):
            service.wait_complete(job_id)
        wait_for(lambda: exits(ending) and exits(waiting), 60, "their events")

        # When everything is stopped, and the backup is restored
        for name in list(service.processes):
            service.terminate(name)
        restore(service, tmp_path / "backup")
        service.start("web")

        # I expect all jobs to be as they were, before anything else runs
        jobs = (complete, running, ending, waiting, starting)
        assert {job_id: service.get_job(job_id)["status"] for job_id in jobs} == {
            complete: "failed",
            running: "running",
            ending: "running",
            waiting: "accepted",
            starting: "accepted",
        }
        assert service.request("GET", f"/v1/jobs/{later}").status_code == 404

        # And then those whose containers still run to continue, that whose container is gone to be lost, and that which has run
        # to run again
        for name in ("worker", "deliver", "relay"):
            service.start(name)
        assert service.wait_complete(ending)["reason"] == "engine_lost"
        assert service.wait_complete(waiting)["status"] == "completed"
        assert service.wait_status(starting, "running")["startedAt"] == started_at
        for job_id in (running, starting):
            assert service.get_job(job_id)["status"] == "running"
            assert service.request("DELETE", f"/v1/jobs/{job_id}").status_code == 204
            assert service.wait_complete(job_id)["status"] == "cancelled"

        # And a second event with another id for what ends a second time
        wait_for(lambda: all(len(exits(job_id)) == 2 for job_id in (ending, waiting)), 60, "the second events")
        for job_id in (ending, waiting):
            assert len({event["id"] for event in exits(job_id)}) == 2, job_id
        wait_for(lambda: exits(running), 60, "its event")
        assert len(exits(complete)) == 1


def back_up_embedded(directory: Path) -> int:
    """Run the command of docs/operations.md in a directory, in which `var` is STATE_DIR; return its exit code."""
    (copy,) = re.findall(r"^python3 -c '(import sqlite3.*)'$", OPERATIONS.read_text(), re.MULTILINE)
    return subprocess.run([sys.executable, "-c", copy], cwd=directory, timeout=60, check=False).returncode


@pytest.mark.stateless
def test_a_backup_of_no_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()

    assert back_up_embedded(tmp_path) != 0

    assert not list(tmp_path.rglob("*.sqlite3"))


@pytest.mark.stateless
def test_an_embedded_service_continues_in_another_directory(tmp_path: Path) -> None:
    # Given an embedded service with keys of its own, and a job with a secret that no node can run
    keys = {"SECRET_KEY": "", "ENCRYPTION_KEYS": ""}
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
    with embedded_installation(first, **keys) as embedded:
        embedded.wait_until_ready()
        waiting = embedded.post_job(command="echo $TOKEN", environment={"TOKEN": "a secret"}, memory=65536)

        # When its database is copied while it runs, and the copy is used in another directory with the keys
        (tmp_path / "var").symlink_to(first)
        assert back_up_embedded(tmp_path) == 0
        embedded.stop()
        (tmp_path / "backup.sqlite3").rename(second / "orchestrator.sqlite3")
        for name in ("encryption_keys", "secret_key"):
            shutil.copy(first / name, second / name)

        # I expect the job to run there
        with embedded_installation(second, **keys, NODE_MEMORY="64GiB") as elsewhere:
            assert elsewhere.wait_complete(waiting)["status"] == "completed"
            assert elsewhere.get_log(waiting) == ["a secret"]
