"""Compare each job of a load with what must have become of it."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from tests.faults.load import KEY, PAYLOAD_BYTES, Task, payload_sha256
from tests.faults.outages import Outage
from tests.helpers.fileserver import FileServer
from tests.helpers.receiver import Receiver
from tests.helpers.service_processes import Service

PIPE_BYTES: Final = 64 * 1024
ORDER: Final = ("input", "start", "log", "exit", "output", "complete")
NO_HELPER: Final = "did not start the helper"
UNREAD: Final = "[lines may be missing here: the engine cannot read the rest of its log]"


def check_outcomes(
    tasks: Sequence[Task],
    starts: dict[str, int],
    outages: Sequence[Outage],
    service: Service,
    receiver: Receiver,
    files: FileServer,
) -> None:
    """Raise `AssertionError` with the differences of all tasks. `starts`: how often each job's process was started."""
    events = _events_by_job(receiver)
    problems = []
    for task in tasks:
        job = service.get_job(task.id)
        try:
            _check(task, job, service.get_log(task.id), events[task.id], starts.get(task.id, 0), outages)
            if task.upload and not task.lost:
                sent = {(upload.size, upload.sha256) for upload in files.of(task.upload)}
                assert (PAYLOAD_BYTES, payload_sha256()) in sent, sent
        except AssertionError as error:
            problems.append(f"{task.id} ({task.kind}): {error}")
    assert not problems, "\n".join(problems)


def _events_by_job(receiver: Receiver) -> dict[str, list[dict[str, Any]]]:
    """Return each job's events in the order of their first arrival. All must be signed, and repeated unchanged."""
    first: dict[str, bytes] = {}
    events: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for received in list(receiver.requests):
        received.verify(KEY)
        event = received.json
        if event["id"] in first:
            assert first[event["id"]] == received.body, "an event came in two versions"
        else:
            first[event["id"]] = received.body
            events[event["subject"]].append(event)
    return events


def _check(
    task: Task, job: dict[str, Any], stored: list[str], events: list[dict[str, Any]], starts: int, outages: Sequence[Outage]
) -> None:
    _allow_for_outages(task, job, outages)
    ends_unread = task.log_may_end_unread and stored[-1:] == [UNREAD]
    if ends_unread:
        stored = stored[:-1]
    sent = [line for event in events if event["type"].endswith(".log") for line in event["data"]["lines"]]
    if any(outage.began_in_run_of(job) for outage in outages):
        if task.kind == "big log":  # its log may end for readers with a line that the engine wrote half of
            task.expect_cut_log()
        stored = [line for line in stored if line != UNREAD]
        stored, sent = (_without_gap(lines, task.lines or task.max_lines) for lines in (stored, sent))
    _check_status(task, job, stop_unseen=any(outage.overlaps_stop_of(job) for outage in outages))
    assert task.min_starts <= starts <= task.max_starts, f"its process was started {starts} times"
    _check_lines("stored", task, stored)
    _check_lines("sent", task, sent)
    _check_order(task, job, events, dropped_lines=int(ends_unread))


def _allow_for_outages(task: Task, job: dict[str, Any], outages: Sequence[Outage]) -> None:
    """Change what is expected of a task to what the engine could still know after it was away."""
    ended_unseen = any(outage.covers_decision_of(job) for outage in outages)
    if job.get("reason") == "engine_lost":
        was_cut_off = task.start_may_be_cut_off and "cut off while it started" in job["error"]
        if was_cut_off or any(outage.began_in_start_of(job) for outage in outages):
            task.expect_lost()
            task.min_starts, task.max_starts = 0, 1
        elif ended_unseen or (task.may_be_lost and any(outage.ended_after_start_of(job) for outage in outages)):
            task.expect_lost()
    elif ended_unseen:
        task.expect_cut_log()
    if task.start_may_be_cut_off and any(NO_HELPER in item.get("error", "") for item in job.get("outputs", ())):
        task.expect_no_outputs()


def _check_status(task: Task, job: dict[str, Any], *, stop_unseen: bool) -> None:
    expected = (task.status, task.reason, task.exit_code)
    seen = (job["status"], job.get("reason"), job["exitCode"])
    if task.status == "cancelled":  # -1 if it was cancelled before it ran, else the code of the signal that ended it
        assert seen[:2] == expected[:2], job
        assert seen[2] in (-1, 137, 143), job
    elif task.reason == "timeout" and (task.may_be_lost or stop_unseen):  # ended by the engine's end, or unseen by it
        assert seen[:2] == expected[:2], job
        assert seen[2] in (-1, 143), job
    else:
        assert seen == expected, job
    assert job["completedAt"], job
    if task.status == "cancelled" or task.lost:
        return
    assert tuple(item["status"] for item in job.get("inputs", [])) == task.inputs, job
    assert tuple(item["status"] for item in job.get("outputs", [])) == task.outputs, job


def _check_lines(where: str, task: Task, lines: list[str]) -> None:
    assert len(lines) >= task.min_lines, f"{where}: {len(lines)} lines, of at least {task.min_lines}"
    expected = task.lines if task.lines is not None else task.max_lines[: len(lines)]
    if task.lines is None and lines and expected[-1].startswith(lines[-1]):
        lines = [*lines[:-1], expected[-1]]  # the process was ended in the middle of this line
    same = _first_difference(lines, expected)
    assert lines == expected, (
        f"{where} lines differ after {same} of {len(expected)} (there are {len(lines)}): "
        f"{lines[same : same + 3]} instead of {expected[same : same + 3]}"
    )


def _without_gap(lines: list[str], expected: list[str]) -> list[str]:
    """Return the lines, with one missing piece filled in: what a killed engine had in memory, at most a full pipe."""
    same = _first_difference(lines, expected)
    if same == len(expected) or same + 1 >= len(lines):
        return lines
    place = {line: index for index, line in enumerate(expected)}
    after = lines[same:] if lines[same] in place else lines[same + 1 :]  # the gap may end in the middle of a line
    missing = expected[same : place.get(after[0], 0)]
    assert sum(len(line) + 1 for line in missing) <= PIPE_BYTES, f"{len(missing)} lines are missing"
    return [*lines[:same], *missing, *after]


def _first_difference(lines: list[str], expected: list[str]) -> int:
    pairs = zip(lines, expected, strict=False)
    return next((index for index, (line, wanted) in enumerate(pairs) if line != wanted), min(len(lines), len(expected)))


def _check_order(task: Task, job: dict[str, Any], events: list[dict[str, Any]], *, dropped_lines: int) -> None:
    types = [event["type"].removeprefix("orchestrator.job.") for event in events]
    assert [event["jobsequence"] for event in events] == list(range(1, len(events) + 1)), types
    assert types == sorted(types, key=ORDER.index), types
    counts = {name: types.count(name) for name in ("start", "exit", "complete")}
    assert counts == {"start": int("startedAt" in job), "exit": 1, "complete": 1}, types
    exited = next(event["data"] for event in events if event["type"].endswith(".exit"))
    assert (exited["exitCode"], exited.get("reason")) == (job["exitCode"], job.get("reason")), exited
    assert exited.get("droppedLines", 0) == dropped_lines, exited
    if task.content is not None and not task.lost:
        contents = [event["data"]["content"] for event in events if event["type"].endswith(".output")]
        assert contents == [task.content], contents
