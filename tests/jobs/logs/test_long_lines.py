"""Lines that are too long for one event: the pieces can be joined again to what was printed."""

from collections.abc import Sequence

import pytest
from django.test import Client

from callbacks.models import Event
from jobs import lifecycle
from jobs.engine.protocol import Frame
from jobs.lifecycle import Claim
from jobs.log_lines import MAX_EVENT_BYTES
from jobs.logs.log_writer import LogWriter
from jobs.models import Job
from tests.helpers.log_frames import alone
from tests.jobs.logs.log_steps import decide, dropped_lines_in_exit, log_events, log_writer, started

pytestmark = pytest.mark.django_db(transaction=True)

PIECE = MAX_EVENT_BYTES - len('[""]')  # characters of one byte in a piece
LONG = "x" * (2 * PIECE) + "y"  # a line of three pieces


@pytest.fixture
def claim() -> Claim:
    return started(id="a")


def frames(*texts: str) -> list[Frame]:
    return [Frame("stdout", f"2026-01-01T00:00:00.{number:09}Z", text.encode()) for number, text in enumerate(texts)]


def write(writer: LogWriter, frames: Sequence[Frame]) -> None:
    for frame in frames:
        writer.write(alone(frame))
    writer.write(None)


def log_as_text(client: Client) -> str:
    answer = client.get("/v1/jobs/a/logs")
    content: str = answer.getvalue().decode()  # type: ignore[attr-defined]
    return content


def test_every_form_of_a_log_tells_a_cut_from_a_line_feed(client: Client, claim: Claim) -> None:
    write(log_writer(claim), frames(LONG + "\nshort\n"))

    assert log_as_text(client) == LONG + "\nshort\n"
    page = client.get("/v1/jobs/a/logs", headers={"Accept": "application/json"}).json()
    assert [line.get("partial") for line in page["lines"]] == [True, True, None, None]
    assert [(len(data["lines"]), data.get("partialLines")) for data in log_events()] == [(1, [0]), (1, [0]), (2, None)]
    assert all(len(bytes(event.body)) <= 64 * 1024 for event in Event.objects.all())


def test_pieces_can_be_joined_after_crashes_within_a_line(client: Client, claim: Claim) -> None:
    # Given writers that die after each commit, in the middle of the line and of its characters
    printed = "漢" * 40_000 + "\n終"
    data = printed.encode()
    cut = [Frame("stdout", "t", data[at : at + 16_384]) for at in range(0, len(data), 16_384)]
    for number in range(len(cut)):
        write(log_writer(claim), cut[Job.objects.get().log_frames : number + 1])
    last = log_writer(claim)
    write(last, cut[Job.objects.get().log_frames :])
    last.finish()

    # I expect
    assert log_as_text(client) == printed
    joined = "".join(
        line + ("" if index in data.get("partialLines", []) else "\n")
        for data in log_events()
        for index, line in enumerate(data["lines"])
    )
    assert joined == printed + "\n"


def test_a_log_that_gets_full_within_a_line_ends_there(client: Client, claim: Claim) -> None:
    # Given a limit that leaves space for two of the three pieces
    write(log_writer(claim, log_limit=2 * (PIECE + 1)), frames(LONG + "\n"))

    # I expect two pieces and the marker on a line of its own; the callback gets the whole line
    assert log_as_text(client).startswith("x" * (2 * PIECE) + "\n[the stored log ends here")
    assert "".join(line for data in log_events() for line in data["lines"]) == LONG


def test_dropped_pieces_are_counted_as_lines(claim: Claim, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an ended job with space for one event after the start event, whose callback does not keep up
    monkeypatch.setattr("jobs.logs.backpressure.MAX_UNDELIVERED", 2)
    decide(claim)
    writer = log_writer(claim)
    writer.backlog.may_drop = True

    # When
    write(writer, frames(LONG + "\n"))
    lifecycle.exited(claim, 0)

    # I expect one piece to be published as partial, and the other two to be counted
    assert [data["partialLines"] for data in log_events()] == [[0]]
    assert dropped_lines_in_exit() == 2
