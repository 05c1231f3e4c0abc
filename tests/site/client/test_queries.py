"""What `list` and `status` print."""

import sys
from argparse import Namespace
from typing import Any, cast

import pytest

from orchestrator_site.client import queries
from orchestrator_site.client.interrupts import Interrupts
from orchestrator_site.client.service.api import Service

pytestmark = pytest.mark.stateless

JOB: dict[str, Any] = {
    "id": "nightly",
    "namespace": "team-a",
    "status": "failed",
    "image": "alpine",
    "error": "the engine said: " + "no space left on device " * 5,
    "createdAt": "2026-01-01T00:00:00Z",
    "startedAt": "2026-01-01T00:00:01.00Z",
    "finishedAt": "2026-01-01T00:00:01.01Z",
    "usage": {"cpuSeconds": 0.25, "peakMemoryBytes": 2**20, "inputBytes": 0, "outputBytes": 0, "logBytes": 10},
}


class StoredJob:
    """A service with one job."""

    def get(self, _: str) -> dict[str, Any]:
        return JOB

    def list_jobs(self, _: object) -> dict[str, Any]:
        return {"jobs": [JOB]}


def printed(capsys: pytest.CaptureFixture[str], command: Any, **options: Any) -> list[str]:
    assert command(Namespace(json=False, **options), cast(Service, StoredJob()), Interrupts()) == 0
    return capsys.readouterr().out.splitlines()


def test_the_columns_of_a_list_are_as_wide_as_the_longest_duration(capsys: pytest.CaptureFixture[str]) -> None:
    header, row = printed(capsys, queries.list_jobs, status=None, image=None, node=None, meta=[], limit=1)
    assert row[header.index("RAN") : header.index("IMAGE")].strip() == "less than 0.1 s"
    assert row[header.index("IMAGE") :] == "alpine (in team-a)"


def test_nothing_is_said_of_files_that_a_job_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, queries.status, id="nightly")
    assert "Namespace team-a" in lines
    assert "Used      0.25 s of cpu, 1.0 MiB of memory, 10 bytes of log" in lines


def test_a_long_value_is_wrapped_at_words_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job with a long error, which a pipe gets on one line
    assert f"Error     {JOB['error']}" in printed(capsys, queries.status, id="nightly")

    # When a narrow terminal gets it, I expect lines that fit, below one another
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    lines = printed(capsys, queries.status, id="nightly")
    assert max(map(len, lines)) <= 60
    first = next(number for number, line in enumerate(lines) if line.startswith("Error"))
    assert [line[:10] for line in lines[first : first + 3]] == ["Error     ", " " * 10, " " * 10]
    assert " ".join(line[10:] for line in lines[first : first + 3]) == JOB["error"].strip()
