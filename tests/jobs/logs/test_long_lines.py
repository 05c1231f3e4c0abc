"""Lines that are too long for one event: stored, told and shown so that what was printed can be put together again."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from django.test import Client

from callbacks.models import Event
from jobs import lifecycle
from jobs.engine.protocol import Frame
from jobs.lifecycle import Claim
from jobs.log_lines import ENCODED_LIMIT
from jobs.logs.log_writer import Reader
from jobs.models import Job
from jobs.states import State
from tests.helpers.factories import STARTED_AT, claimed, make_job

pytestmark = pytest.mark.django_db(transaction=True)

PIECE = ENCODED_LIMIT - len('[""]')  # characters of one byte in a piece
LONG = "x" * (2 * PIECE) + "y"  # a line of three pieces


@pytest.fixture
def claim() -> Claim:
    claim = claimed(make_job(id="a"))
    lifecycle.started(claim, STARTED_AT)
    return claim


def reader(claim: Claim, limit: int = 10**9) -> Reader:
    return Reader(claim, Job.objects.get(), limit, 10**9)


def frames(*texts: str) -> list[Frame]:
    return [Frame("stdout", f"2026-01-01T00:00:00.{number:09}Z", text.encode()) for number, text in enumerate(texts)]


def read(reader: Reader, some: Sequence[Frame]) -> None:
    for frame in some:
        reader.take(frame)
    reader.take(None)


def text(client: Client) -> str:
    answer = client.get("/v1/jobs/a/logs")
    content: str = answer.getvalue().decode()  # type: ignore[attr-defined]
    return content


def told() -> list[dict[str, Any]]:
    rows = Event.objects.filter(type="orchestrator.job.log").order_by("sequence")
    return [json.loads(bytes(row.body))["data"] for row in rows]


def test_all_forms_of_a_log_tell_a_cut_from_a_line_feed(client: Client, claim: Claim) -> None:
    read(reader(claim), frames(LONG + "\nshort\n"))

    assert text(client) == LONG + "\nshort\n"
    page = client.get("/v1/jobs/a/logs", headers={"Accept": "application/json"}).json()
    assert [line.get("partial") for line in page["lines"]] == [True, True, None, None]
    assert [(len(data["lines"]), data.get("partialLines")) for data in told()] == [(1, [0]), (1, [0]), (2, None)]
    assert all(len(bytes(event.body)) <= 64 * 1024 for event in Event.objects.all())


def test_a_reader_that_goes_on_after_a_crash_tells_them_apart_too(client: Client, claim: Claim) -> None:
    # Given readers that die after each commit, in the middle of the line and of its characters
    printed = "漢" * 40_000 + "\n終"
    data = printed.encode()
    cut = [Frame("stdout", "t", data[at : at + 16_384]) for at in range(0, len(data), 16_384)]
    for number in range(len(cut)):
        read(reader(claim), cut[Job.objects.get().log_frames : number + 1])
    last = reader(claim)
    read(last, cut[Job.objects.get().log_frames :])
    last.finish()

    assert text(client) == printed
    joined = "".join(
        line + ("" if index in data.get("partialLines", []) else "\n")
        for data in told()
        for index, line in enumerate(data["lines"])
    )
    assert joined == printed + "\n"


def test_a_log_that_is_full_in_the_middle_of_a_line_ends_there(client: Client, claim: Claim) -> None:
    # Given a log with room for two of the pieces
    read(reader(claim, limit=2 * (PIECE + 1)), frames(LONG + "\n"))

    # I expect these, and the marker on a line of its own; the callback gets all
    assert text(client).startswith("x" * (2 * PIECE) + "\n[the stored log ends here")
    assert "".join(line for data in told() for line in data["lines"]) == LONG


def test_pieces_that_are_dropped_are_counted_as_lines(claim: Claim, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a job that has ended, in front of a callback that has room for one more event after its start
    monkeypatch.setattr("jobs.logs.log_writer.BACKLOG", 2)
    lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=STARTED_AT)

    # When it is read to its end
    read(reader(claim), frames(LONG + "\n"))
    lifecycle.exited(claim, 0)

    # I expect the first piece, which says that it goes on, and the other two to be counted
    assert [data["partialLines"] for data in told()] == [[0]]
    exit_event = Event.objects.get(type="orchestrator.job.exit")
    assert json.loads(bytes(exit_event.body))["data"]["droppedLines"] == 2
