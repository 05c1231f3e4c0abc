"""Jobs that do what they can to take the machine, the engine or the service down with them."""

import os
from typing import Any

import pytest

from tests.faults.system import SystemOn
from tests.helpers import built_images
from tests.helpers.service_processes import Service
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.production, pytest.mark.long, pytest.mark.timeout(900)]

NAME = "n" * 250
LINE = "0123456789" * 8
MANY_FILES = "for a in $(seq 1000); do mkdir $a; cd $a; seq 1000 | xargs touch; cd ..; done"
DEEP = f"""
import os
for level in range(10000):
    os.mkdir({NAME!r})
    os.chdir({NAME!r})
"""
# Their commands, and the reasons for which they may end; None: they may complete.
HOSTILE: dict[str, tuple[dict[str, Any], set[str | None]]] = {
    "forks": ({"command": ":(){ :|:& }; :; while true; do :; done", "memory": 256}, {"timeout", "exit_code"}),
    "forks in other ways": ({"command": "while true; do sleep 600 & done", "memory": 256}, {"timeout", "exit_code"}),
    "prints": ({"command": f"yes {LINE}"}, {"timeout"}),
    "prints one endless line": ({"command": "tr '\\0' x < /dev/zero"}, {"timeout"}),
    "takes memory": ({"command": "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done", "memory": 256}, {"oom", "exit_code"}),
    "fills the memory with files": ({"command": "exec dd if=/dev/zero of=/dev/shm/file bs=1M"}, {"oom", "exit_code"}),
    "fills the disk": (
        {"command": "while true; do dd if=/dev/zero of=$((i++)) bs=1M count=100; done", "cpu": 1, "timeoutSeconds": 300},
        {"disk"},
    ),
    "fills the disk without a name": (
        {"command": "exec 3>f; rm f; exec dd if=/dev/zero bs=1M >&3", "cpu": 1, "timeoutSeconds": 300},
        {"disk"},
    ),
    "fills the engine's file": (
        {"command": "exec dd if=/dev/zero of=/etc/hosts bs=1M", "cpu": 1, "timeoutSeconds": 300},
        {"disk"},
    ),
    "makes a million files": ({"command": MANY_FILES, "cpu": 1, "timeoutSeconds": 300}, {"disk"}),
    "makes long names": ({"command": f"while true; do : > {NAME}$((i++)); done"}, {"timeout"}),
    "digs deep": ({"command": ["python3", "-c", DEEP], "image": built_images.PYTHON, "memory": 64}, {None, "timeout"}),
    "opens files": ({"command": 'i=3; while eval "exec $i</dev/null"; do i=$((i+1)); done'}, {"timeout", "exit_code"}),
}


def test_hostile_jobs_end_and_leave_nothing_behind(system_on: SystemOn) -> None:
    host = os.environ["DOCKER_HOST"]
    built_images.ensure_python(host)
    with system_on(host, DISK_LIMIT="2GiB", LOG_LIMIT="1MiB", ENGINE_LOG_LIMIT="64MiB") as system:
        # Given a mixed load
        system.start("worker-1", "worker-2")
        system.load.mixed(30)

        # When hostile jobs run beside it
        defaults = {"cpu": 0.3, "memory": 64, "timeoutSeconds": 20}
        ids = {way: system.service.post_job(**defaults | members) for way, (members, _) in HOSTILE.items()}
        with system.load.posting_more():
            ended = {way: wait_for(lambda found=found: _ended(system.service, found), 600, step=1) for way, found in ids.items()}

        # I expect each of them to end for its own reason, and all others to end as they must, and nothing to be left
        reasons = {way: job.get("reason") for way, job in ended.items()}
        assert {way: reason for way, reason in reasons.items() if reason not in HOSTILE[way][1]} == {}
        system.check(timeout=300)
        assert system.load.refusals == []


def _ended(service: Service, identity: str) -> dict[str, Any] | None:
    job = service.get_job(identity)
    return job if job.get("completedAt") else None
