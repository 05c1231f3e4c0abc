"""A real Docker engine whose runtime refuses every start, as an old runc below a new dockerd does."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.engine.docker import DockerEngine
from jobs.models import Job, Node
from jobs.states import State
from tests.helpers import built_images
from tests.helpers.docker_daemons import own_daemon
from tests.helpers.factories import make_job
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed

pytestmark = [pytest.mark.engine, pytest.mark.django_db(transaction=True)]

# containerd reads the error from the file that it names with --log.
RUNTIME = """#!/bin/sh
if [ -e "{refuse}" ]; then
    while [ $# -gt 1 ] && [ "$1" != --log ]; do shift; done
    echo '{{"level": "error", "msg": "namespace {{\\"time\\" \\"\\"}} does not exist"}}' > "$2"
    exit 1
fi
exec runc "$@"
"""


class Refusing:
    """The engine at `host`, and whether its runtime refuses."""

    def __init__(self, directory: Path) -> None:
        self.host = ""
        self._sign = directory / "refuse"
        self.runtime = directory / "runtime"
        self.runtime.write_text(RUNTIME.format(refuse=self._sign))
        self.runtime.chmod(0o755)

    def refuse(self) -> None:
        self._sign.touch()

    def allow(self) -> None:
        self._sign.unlink()


@pytest.fixture
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refusing]:
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        pytest.skip("only root can start a dockerd")
    directory = tmp_path_factory.mktemp("e")
    refusing = Refusing(directory)
    with own_daemon(directory / "d", runtime=refusing.runtime, firewall=False) as daemon:
        refusing.host = daemon.host
        built_images.import_busybox(daemon.host, "other:latest", [])
        yield refusing


def test_a_runtime_that_refuses_every_start_fails_no_job(
    refusing: Refusing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("jobs.worker.supervisor.hint", lambda *_: False)  # then it has threads of its own
    workers = Workers(DockerEngine(refusing.host), tmp_path)
    workers.set_intervals(claim={"start_pause_max": 1})
    try:
        # Given an engine that refuses every start
        refusing.refuse()
        jobs = [make_job(image=image, pull_policy="never") for image in ("alpine:latest", "other:latest")]
        workers.another(worker_threads=2)

        # I expect the node to be closed, and the jobs to wait
        wait_for(lambda: Node.objects.filter(next_start_at__isnull=False).exists(), 30, "the node to notice")
        wait_for(lambda: not Job.objects.exclude(node=None).exists(), 30, "the jobs to be requeued")
        assert 'namespace {"time" ""} does not exist' in caplog.text

        # And to run when it is repaired
        refusing.allow()
        assert [completed(job).status for job in jobs] == [State.COMPLETED] * 2
    finally:
        workers.stop()
