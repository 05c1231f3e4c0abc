"""What README.md shows works when it is copied."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from environment import free_port, without_service

from tests.helpers.waiting import wait_for
from tests.project.commands import ROOT, STOP_SECONDS, answers, started


def readme_commands() -> list[str]:
    """Return the shell blocks of the README, in order."""
    return re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.stateless
def test_the_readme_begins_with_demo_test_and_serve() -> None:
    blocks = readme_commands()

    assert blocks[:2] == ["bin/demo\nbin/test\n", "bin/serve\n"]
    assert all(os.access(ROOT / command, os.X_OK) for command in "".join(blocks[:2]).split())


@pytest.mark.stateless
@pytest.mark.engine
def test_the_requests_in_the_readme_work_as_copied(tmp_path: Path) -> None:
    # Given a service as the README starts it, on a free port
    port = free_port()
    requests_shown = [block.replace(":8080/", f":{port}/") for block in readme_commands()[2:]]
    with started("serve", tmp_path, PORT=str(port), METRICS_PORT=str(free_port())) as serve:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/readyz"), STOP_SECONDS)

        # When the requests are copied into a shell, one block after the other
        printed = [
            subprocess.run(
                ["bash", "-ec", block],
                cwd=ROOT,
                env=without_service() | {"PORT": str(port)},
                capture_output=True,
                text=True,
                check=True,
                timeout=120,
            ).stdout
            for block in requests_shown
        ]
        serve.terminate()
        serve.communicate(timeout=STOP_SECONDS)

    # I expect the output of the first job, the answer that the README shows, and a job that completes and prints its text
    assert printed[0] == "hello from a container\n"
    assert printed[1] == '{"id": "hello", "status": "accepted"}'
    assert printed[1] in (ROOT / "README.md").read_text()
    assert '"status": "completed"' in printed[2]
    assert printed[2].endswith("HELLO, WORLD\n")
