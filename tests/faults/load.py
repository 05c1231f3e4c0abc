"""A mixed load: jobs of every kind, posted before and during a fault, and what must have become of each in the end."""

import hashlib
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

import requests

from tests.helpers.fileserver import FileServer
from tests.helpers.receiver import Receiver
from tests.helpers.service_processes import Service
from tests.helpers.waiting import wait_for

KEY: Final = "key"
PAYLOAD_BYTES: Final = 100 * 1024**2
PAYLOAD: Final = hashlib.shake_128(b"orchestrator").digest(1024**2) * (PAYLOAD_BYTES // 1024**2)
PAYLOAD_SHA256: Final = hashlib.sha256(PAYLOAD).hexdigest()

SMALL: Final[dict[str, Any]] = {"cpu": 0.1, "memory": 16}
LONG_STEP: Final = 0.1  # seconds between the lines of a long job
PIPE_BYTES: Final = 64 * 1024
_PERSISTENCE: Final = 90.0  # seconds for which a client repeats a request that found nobody
_RETRY: Final = 0.2
_LOOK: Final = 0.5  # seconds between looks at the whole load
_TRICKLE: Final = 1.0  # seconds between jobs posted during a fault


@dataclass
class Task:
    """A job that was posted and accepted, and how it must end."""

    id: str
    kind: str
    status: str
    reason: str | None = None
    exit_code: int = 0
    lines: list[str] | None = None  # of its log; None: it begins as `most_lines`, the last line perhaps cut short
    most_lines: list[str] = field(default_factory=list)
    fewest_lines: int = 0  # these were stored before the fault
    starts: tuple[int, int] = (1, 1)  # fewest and most
    inputs: tuple[str, ...] = ()  # statuses
    outputs: tuple[str, ...] = ()
    upload: str = ""  # path on the file server that must have received the payload
    content: Any = None  # of its `event` output
    lost: bool = False  # its engine was ended under it
    perhaps_lost: bool = False  # it may have been, where it had started

    def lose(self) -> None:
        """From now on it must end as one whose engine went away while it ran."""
        self.lost = True
        self.status, self.reason, self.exit_code = "failed", "engine_lost", -1
        self.most_lines, self.lines = self.lines or self.most_lines, None


@dataclass(frozen=True)
class Refusal:
    """An answer to a POST or DELETE that was no success. `status` is None where there was no answer."""

    status: int | None = None
    retry_after: str | None = None


class Load:
    """Posts jobs as a client does that repeats what got no answer, and knows what each has to become."""

    def __init__(self, service: Service, receiver: Receiver, files: FileServer, seed: int) -> None:
        self.tasks: list[Task] = []
        self.refusals: list[Refusal] = []
        self.random = random.Random(seed)
        self._service = service
        self._receiver = receiver
        self._files = files
        self._lock = threading.Lock()
        self._number = 0
        self._timers: list[threading.Timer] = []
        self._away: list[tuple[datetime, datetime]] = []
        files.serve("/payload", PAYLOAD, ETag='"1"')

    # -- kinds of jobs ----------------------------------------------------------------------------
    def quick(self, exit_code: int = 0, **members: Any) -> Task:
        ends = {"status": "failed", "reason": "exit_code"} if exit_code else {"status": "completed"}
        command = f"echo out; exit {exit_code}"
        return self._post(Task("", "quick", **ends, exit_code=exit_code, lines=["out"]), command=command, **members)

    def long(self, seconds: float, **members: Any) -> Task:
        """Prints a numbered line each 100 ms; exit code 7."""
        count = round(seconds / LONG_STEP)
        command = f"i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo line $i; sleep {LONG_STEP}; done; exit 7"
        lines = [f"line {number}" for number in range(1, count + 1)]
        return self._post(Task("", "long", "failed", "exit_code", 7, lines=lines), command=command, **members)

    def stubborn(self) -> Task:
        """Prints a line each 100 ms for an hour, and takes a SIGTERM for a reason to end well."""
        command = "trap 'exit 0' TERM; i=0; while true; do i=$((i+1)); echo line $i; sleep 0.1 & wait; done"
        lines = [f"line {number}" for number in range(1, 36_001)]
        return self._post(Task("", "stubborn", "completed", most_lines=lines), command=command, timeoutSeconds=3600)

    def big_log(self, bursts: int, lines: int = 2000) -> Task:
        """Prints so many lines at once, several times, on both streams in turn."""
        command = f"k=0; while [ $k -lt {bursts} ]; do k=$((k+1)); seq $((k*{lines}+1)) $((k*{lines}+{lines})); sleep 0.2; done"
        expected = [str(number) for number in range(lines + 1, (bursts + 1) * lines + 1)]
        return self._post(Task("", "big log", "completed", lines=expected), command=command, memory=32)

    def transfer(self) -> Task:
        """Takes 100 MiB in and gives them out again."""
        path = f"/taken-{time.monotonic_ns()}"
        return self._post(
            Task(
                "",
                "transfer",
                "completed",
                lines=[f"{PAYLOAD_SHA256}  in"],
                inputs=("success",),
                outputs=("success",),
                upload=path,
            ),
            command="sha256sum in; cp in out",
            cpu=0.5,
            memory=64,
            inputs=[{"type": "download", "path": "in", "url": self._files.url("/payload")}],
            outputs=[{"type": "upload", "path": "out", "url": self._files.url(path)}],
        )

    def file_and_event(self) -> Task:
        """A file in, its content out as an event."""
        number = time.monotonic_ns()
        return self._post(
            Task("", "event", "completed", lines=[], inputs=("success",), outputs=("success",), content={"number": number}),
            command="cp in out",
            inputs=[{"type": "file", "path": "in", "content": f'{{"number": {number}}}'}],
            outputs=[{"type": "event", "path": "out"}],
        )

    def overdue(self) -> Task:
        return self._post(
            Task("", "overdue", "failed", "timeout", 143, lines=["begun"]),
            command="echo begun; sleep 600",
            timeoutSeconds=3,
        )

    def without_input(self) -> Task:
        return self._post(
            Task("", "without input", "failed", "input_failed", -1, lines=[], starts=(0, 0), inputs=("failed",)),
            command="true",
            inputs=[{"type": "download", "path": "in", "url": self._files.url("/nothing")}],
        )

    def cancelled(self, after: float = 0.0) -> Task:
        """A long job that is cancelled so many seconds after it was accepted, running or not."""
        task = self._endless("cancelled")
        timer = threading.Timer(after, self.cancel, [task])
        self._timers.append(timer)
        timer.start()
        return task

    def deaf(self) -> Task:
        """Takes no notice of SIGTERM; the caller cancels it."""
        return self._endless("deaf", before="trap '' TERM; ")

    def _endless(self, kind: str, before: str = "") -> Task:
        lines = [f"line {number}" for number in range(1, 6001)]
        command = before + "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.1; done"
        task = Task("", kind, "cancelled", "cancelled", most_lines=lines, starts=(0, 1))
        return self._post(task, command=command, timeoutSeconds=600)

    def mixed(self, seconds: float, transfers: int = 1) -> None:
        """Some of every kind, in random order; the long ones run for about so many seconds."""
        kinds: list[Callable[[], object]] = [
            self.quick,
            lambda: self.quick(3),
            *[lambda: self.long(seconds * self.random.uniform(0.6, 1.0))] * 4,
            lambda: self.big_log(round(seconds)),
            *[self.transfer] * transfers,
            self.file_and_event,
            self.overdue,
            self.without_input,
            *[lambda: self.cancelled(self.random.uniform(0, seconds))] * 3,
        ]
        self.random.shuffle(kinds)
        for kind in kinds:
            kind()

    @contextmanager
    def trickling(self) -> Iterator[None]:
        """Post a small job now and then meanwhile."""
        ended = threading.Event()

        def post() -> None:
            kinds: list[Callable[[], object]] = [self.quick, lambda: self.quick(5), self.file_and_event, self.cancelled]
            number = 0
            while not ended.wait(_TRICKLE):
                kinds[number % len(kinds)]()
                number += 1

        thread = threading.Thread(target=post, name="trickle")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextmanager
    def engine_away(self) -> Iterator[None]:
        """The engine, which keeps its processes alive, is away meanwhile.

        Of one that ends then it loses what it prints, and where it was just told of the end, its exit code.
        """
        begin = datetime.now(UTC)
        yield
        self._away.append((begin, datetime.now(UTC)))

    def close(self) -> None:
        """Cancel nothing any more."""
        for timer in self._timers:
            timer.cancel()

    # -- what a client does -------------------------------------------------------------------------
    def _post(self, task: Task, **members: Any) -> Task:
        with self._lock:
            self._number += 1
            task.id = f"job-{self._number}"
        callback = {"url": self._receiver.url, "key": KEY}
        body = {"image": "alpine:latest", "id": task.id, "callback": callback, **SMALL, **members}
        answer = self._insist("POST", "/v1/jobs", json=body)
        # An answer may be lost after the job was stored: then the same id is taken.
        assert answer.status_code in (HTTPStatus.ACCEPTED, HTTPStatus.CONFLICT), answer.text
        self.tasks.append(task)
        return task

    def cancel(self, task: Task) -> None:
        answer = self._insist("DELETE", f"/v1/jobs/{task.id}")
        assert answer.status_code == HTTPStatus.NO_CONTENT, answer.text

    def _insist(self, method: str, path: str, **options: Any) -> requests.Response:
        """Repeat the request until the service takes it."""
        deadline = time.monotonic() + _PERSISTENCE
        with requests.Session() as session:
            session.trust_env = False
            while True:
                refusal = Refusal()
                try:
                    answer = session.request(method, self._service.url + path, timeout=60, **options)
                except requests.RequestException as error:
                    problem = str(error)
                else:
                    if answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                        return answer
                    refusal = Refusal(answer.status_code, answer.headers.get("Retry-After"))
                    problem = answer.text
                self.refusals.append(refusal)
                assert time.monotonic() < deadline, f"{method} {path}: {problem}"
                time.sleep(_RETRY)

    # -- the end ------------------------------------------------------------------------------------
    def wait_until_running(self, *tasks: Task) -> None:
        """Until each has printed something."""
        for task in tasks:
            task.fewest_lines = wait_for(lambda task=task: len(self._log(task)), 60, f"{task.id} to print", step=_RETRY)

    def wait_until_done(self, timeout: float = 180) -> None:
        """Until every job is complete and its callback knows."""
        deadline = time.monotonic() + timeout

        def left() -> float:
            return max(1.0, deadline - time.monotonic())

        wait_for(
            lambda: self._service.query("SELECT count(*) FROM jobs_job WHERE completed_at IS NULL") == [(0,)],
            left(),
            "all jobs to be complete",
            step=_LOOK,
        )
        missing = {task.id for task in self.tasks}

        def all_told() -> bool:
            completed = {event["subject"] for event in self._receiver.events if event["type"].endswith(".complete")}
            return missing <= completed

        wait_for(all_told, left(), "all complete events", step=_LOOK)

    def check(self, starts: dict[str, int]) -> None:
        """Raise where a job did not become what it had to. `starts`: how often each job's process was started."""
        events = self._events()
        problems = []
        for task in self.tasks:
            try:
                self._check(task, events[task.id], starts.get(task.id, 0))
            except AssertionError as error:
                problems.append(f"{task.id} ({task.kind}): {error}")
        assert not problems, "\n".join(problems)
        # Nobody there, or a clean answer that says when to come again.
        assert {(each.status, each.retry_after is not None) for each in self.refusals} <= {(None, False), (503, True)}

    def _check(self, task: Task, events: list[dict[str, Any]], starts: int) -> None:
        job = self._service.get_job(task.id)
        unseen = self._ended_unseen(job)
        if job.get("reason") == "engine_lost" and self._amid_its_start(job):
            task.lose()
            task.starts = (0, 1)
        elif job.get("reason") == "engine_lost" and (unseen or (task.perhaps_lost and self._started_before(job))):
            task.lose()
        elif unseen and task.lines:
            task.most_lines, task.lines = task.lines, None
        logged = self._log(task)
        told = [line for event in events if event["type"].endswith(".log") for line in event["data"]["lines"]]
        if self._ran_when_it_went(job):
            if task.kind == "big log" and task.lines:  # a line that the engine wrote half of may end the log for its readers
                task.most_lines, task.lines = task.lines, None
            logged = [line for line in logged if "the engine cannot read the rest" not in line]
            logged, told = (_without_hole(lines, task.lines or task.most_lines) for lines in (logged, told))
        _check_status(task, job, stop_unseen=self._stopped_unseen(job))
        assert task.starts[0] <= starts <= task.starts[1], f"its process was started {starts} times"
        _check_lines("stored", task, logged)
        _check_lines("told", task, told)
        _check_order(task, job, events)
        if task.upload and not task.lost:
            assert {(sent.size, sent.sha256) for sent in self._files.of(task.upload)} >= {(PAYLOAD_BYTES, PAYLOAD_SHA256)}

    def _log(self, task: Task) -> list[str]:
        return self._service.request("GET", f"/v1/jobs/{task.id}/logs").text.splitlines()

    def _started_before(self, job: dict[str, Any]) -> bool:
        """Before the engine was back."""
        started = datetime.fromisoformat(job["startedAt"])
        return any(started < end for _, end in self._away)

    def _amid_its_start(self, job: dict[str, Any]) -> bool:
        """The engine went in the middle of its start, and says so."""
        created = datetime.fromisoformat(job["createdAt"])
        says_so = "startedAt" not in job and "while it started the process" in job["error"]
        return says_so and any(created < begin for begin, _ in self._away)

    def _ran_when_it_went(self, job: dict[str, Any]) -> bool:
        """The engine may have read some of what it had printed, and not written it down."""
        if "startedAt" not in job:
            return False
        started, ended = (datetime.fromisoformat(job[name]) for name in ("startedAt", "finishedAt"))
        return any(started <= begin <= ended for begin, _ in self._away)

    def _ended_unseen(self, job: dict[str, Any]) -> bool:
        ended = datetime.fromisoformat(job["finishedAt"])
        return any(begin <= ended <= end for begin, end in self._away)

    def _stopped_unseen(self, job: dict[str, Any]) -> bool:
        """The engine went between the decision that ends it and its end."""
        decided, ended = (datetime.fromisoformat(job[name]) for name in ("finishedAt", "completedAt"))
        return any(decided <= end and begin <= ended for begin, end in self._away)

    def _events(self) -> dict[str, list[dict[str, Any]]]:
        """Each job's events in the order of their first arrival, all of them signed, none in two versions."""
        first: dict[str, bytes] = {}
        events: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for received in list(self._receiver.requests):
            received.verify(KEY)
            event = received.json
            if event["id"] in first:
                assert first[event["id"]] == received.body, "an event came in two versions"
            else:
                first[event["id"]] = received.body
                events[event["subject"]].append(event)
        return events


def _check_status(task: Task, job: dict[str, Any], *, stop_unseen: bool) -> None:
    expected = (task.status, task.reason, task.exit_code)
    seen = (job["status"], job.get("reason"), job["exitCode"])
    if task.status == "cancelled":  # the code depends on when: -1 before it ran, else of the signal that ended it
        assert seen[:2] == expected[:2], job
        assert seen[2] in (-1, 137, 143), job
    elif task.reason == "timeout" and (task.perhaps_lost or stop_unseen):  # by the engine's end, or not seen by it
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
    assert len(lines) >= task.fewest_lines, f"{where}: {len(lines)} lines, and there were {task.fewest_lines}"
    expected = task.lines if task.lines is not None else task.most_lines[: len(lines)]
    if task.lines is None and lines and expected[-1].startswith(lines[-1]):
        lines = [*lines[:-1], expected[-1]]  # its process was ended in the middle of it
    pairs = zip(lines, expected, strict=False)
    same = next((index for index, (line, wanted) in enumerate(pairs) if line != wanted), min(len(lines), len(expected)))
    assert lines == expected, (
        f"{where} lines differ after {same} of {len(expected)} (there are {len(lines)}): "
        f"{lines[same : same + 3]} instead of {expected[same : same + 3]}"
    )


def _without_hole(lines: list[str], expected: list[str]) -> list[str]:
    """The lines, and those that a killed engine had in its memory: one piece of them, no more than a pipe holds."""
    same = next((index for index, (line, wanted) in enumerate(zip(lines, expected, strict=False)) if line != wanted), None)
    if same is None or same + 1 >= len(lines):
        return lines
    place = {line: index for index, line in enumerate(expected)}
    behind = lines[same:] if lines[same] in place else lines[same + 1 :]  # it begins amid a line
    end = place.get(behind[0], 0)
    missing = expected[same:end]
    assert sum(len(line) + 1 for line in missing) <= PIPE_BYTES, f"{len(missing)} lines are missing"
    return [*lines[:same], *missing, *behind]


_ORDER: Final = ("input", "start", "log", "exit", "output", "complete")


def _check_order(task: Task, job: dict[str, Any], events: list[dict[str, Any]]) -> None:
    types = [event["type"].removeprefix("orchestrator.job.") for event in events]
    assert [event["jobsequence"] for event in events] == list(range(1, len(events) + 1)), types
    assert types == sorted(types, key=_ORDER.index), types
    counts = {name: types.count(name) for name in ("start", "exit", "complete")}
    ran = "startedAt" in job
    assert counts == {"start": int(ran), "exit": 1, "complete": 1}, types
    told = next(event["data"] for event in events if event["type"].endswith(".exit"))
    assert (told["exitCode"], told.get("reason")) == (job["exitCode"], job.get("reason")), told
    assert "droppedLines" not in told, told
    if task.content is not None and not task.lost:
        contents = [event["data"]["content"] for event in events if event["type"].endswith(".output")]
        assert contents == [task.content], contents
