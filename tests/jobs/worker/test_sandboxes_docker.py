"""Workers with network sandboxes on a real Docker engine: jobs that attack them, and engines that are restarted."""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import leftovers
import pytest

from jobs.engine.docker import DockerEngine
from jobs.models import Instance, Job, LogChunk
from jobs.running.container_labels import SANDBOX_LABEL, UUID_LABEL
from jobs.states import State
from jobs.worker.sandbox_table import SandboxState
from jobs.worker.supervisor import Supervisor
from tests.helpers import built_images
from tests.helpers.docker_daemons import OwnDaemon, own_daemon
from tests.helpers.factories import make_job
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed, running

pytestmark = [pytest.mark.engine, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def host(docker_host: str) -> Iterator[str]:
    yield docker_host
    leftovers.remove(docker_host, Instance.objects.get().name)


@pytest.fixture
def workers(host: str, tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(DockerEngine(host), tmp_path)
    yield workers
    workers.stop()


@pytest.fixture
def client(host: str) -> Iterator[docker.DockerClient]:
    with closing(built_images.client(host)) as client:
        yield client


def wait_for_sandbox(supervisor: Supervisor) -> str:
    """Wait for a free sandbox, and return its name."""
    return wait_for(lambda: [one.name for one in supervisor.sandboxes._in(SandboxState.FREE)], 60, "a sandbox")[0]


def run(workers: Workers, supervisor: Supervisor, command: str) -> str:
    """Run a job in a sandbox, and return what it printed."""
    wait_for_sandbox(supervisor)
    job = make_job(command=command)
    workers.run(supervisor)
    assert completed(job).exit_code == 0
    chunks = LogChunk.objects.filter(job=job).order_by("first")
    return "".join(f"{text}\n" for chunk in chunks for _, _, text in chunk.lines)


def container_of(client: docker.DockerClient, job: Job) -> docker.models.containers.Container:
    (found,) = client.containers.list(all=True, filters={"label": f"{UUID_LABEL}={job.pk}"})
    return found


NAMES = "cat /etc/hosts /etc/resolv.conf | sed 's/^[0-9.]*\\t[0-9a-f]*$//' && stat -c %a:%u /etc/hosts /etc/resolv.conf"


@pytest.mark.parametrize(
    "attack",
    [
        "echo 10.9.9.9 registry.example >> /etc/hosts",
        "echo nameserver 10.9.9.9 > /etc/resolv.conf",
        "chmod 600 /etc/resolv.conf",
    ],
)
def test_a_job_sees_nothing_of_what_the_last_one_wrote(workers: Workers, attack: str) -> None:
    supervisor = workers.another(sandboxes=1)
    before = run(workers, supervisor, NAMES)

    run(workers, supervisor, attack)

    assert run(workers, supervisor, NAMES) == before


def test_a_harmless_job_leaves_its_sandbox_to_the_next(workers: Workers) -> None:
    supervisor = workers.another(sandboxes=1)
    first = wait_for_sandbox(supervisor)

    for _ in range(3):
        run(workers, supervisor, "hostname")

    assert wait_for_sandbox(supervisor) == first


def test_a_sandbox_killed_while_its_job_runs(workers: Workers, client: docker.DockerClient) -> None:
    # Given a job in a sandbox
    supervisor = workers.another(sandboxes=1)
    sandbox = wait_for_sandbox(supervisor)
    job = make_job(command="while [ ! -e /tmp/end ]; do sleep 0.1; done; exit 3")
    workers.run(supervisor)
    running(job)
    assert SANDBOX_LABEL in container_of(client, job).labels

    # When the sandbox is killed
    client.containers.get(sandbox).kill()
    container_of(client, job).exec_run(["touch", "/tmp/end"])

    # I expect the job to end as usual, and another sandbox for the next one
    assert completed(job).exit_code == 3
    wait_for(lambda: wait_for_sandbox(supervisor) != sandbox, 60, "another sandbox")
    run(workers, supervisor, "true")


class TestRestarts:
    """Engines that are stopped or killed, and started again."""

    @pytest.fixture
    def daemon(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnDaemon]:
        if os.geteuid() != 0 or not shutil.which("dockerd"):
            pytest.skip("only root can start a dockerd")
        with own_daemon(tmp_path_factory.mktemp("e"), firewall=False) as daemon:
            yield daemon

    @pytest.fixture
    def host(self, daemon: OwnDaemon) -> str:
        return daemon.host

    @pytest.mark.parametrize("how", ["terminate", "kill"])
    def test_jobs_start_after_a_restart_of_the_engine(self, workers: Workers, daemon: OwnDaemon, how: str) -> None:
        # Given free sandboxes
        supervisor = workers.another(sandboxes=2)
        wait_for(lambda: len(supervisor.sandboxes._in(SandboxState.FREE)) == 2, 60, "two sandboxes")
        before = set(supervisor.sandboxes._all)

        # When the engine is restarted
        getattr(daemon, how)()
        daemon.start_again()
        wait_for(lambda: supervisor._engine_watch.answers, 60, "the engine to answer")

        # I expect jobs to run, and the sandboxes to be replaced
        job = make_job()
        workers.run(supervisor)
        assert completed(job).status == State.COMPLETED
        wait_for(lambda: len(supervisor.sandboxes._in(SandboxState.FREE)) == 2, 60, "two sandboxes")
        assert not before & supervisor.sandboxes._all.keys()
