"""A mixed load: jobs of every kind, posted before and during a fault, each with its expected end."""

import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from typing import Any, Final

import requests

from tests.faults.outages import Outage
from tests.helpers.fileserver import FileServer
from tests.helpers.receiver import Receiver
from tests.helpers.service_processes import Service
from tests.helpers.waiting import wait_for

KEY: Final = "key"
PAYLOAD_BYTES: Final = 100 * 1024**2

SMALL: Final[dict[str, Any]] = {"cpu": 0.1, "memory": 16}
LONG_STEP: Final = 0.1  # seconds between the lines of a long job
_RETRY_SECONDS: Final = 90.0  # for which a client repeats a request that is not answered
_RETRY_PAUSE: Final = 0.2
_POLL_PAUSE: Final = 0.5  # seconds between looks at the whole load
_POST_PAUSE: Final = 1.0  # seconds between jobs that are posted during a fault


@cache
def payload() -> bytes:
    return hashlib.shake_128(b"orchestrator").digest(1024**2) * (PAYLOAD_BYTES // 1024**2)


@cache
def payload_sha256() -> str:
    return hashlib.sha256(payload()).hexdigest()


@dataclass
class Task:
    """An accepted job, and how it must end."""

    id: str
    kind: str
    status: str
    reason: str | None = None
    exit_code: int = 0
    lines: list[str] | None = None  # of its log; None: the log is a beginning of `max_lines`, possibly cut within a line
    max_lines: list[str] = field(default_factory=list)
    min_lines: int = 0  # stored before the fault
    min_starts: int = 1
    max_starts: int = 1
    inputs: tuple[str, ...] = ()  # statuses
    outputs: tuple[str, ...] = ()
    upload: str = ""  # path on the file server that must have received the payload
    content: Any = None  # of its `event` output
    lost: bool = False  # its engine was ended while it ran
    may_be_lost: bool = False  # its engine was ended, possibly while it ran
    start_may_be_cut_off: bool = False  # its node was cut off, possibly while it started the process
    log_may_end_unread: bool = False  # its log was deleted while it ran, possibly before all of it was read

    def expect_lost(self) -> None:
        """Expect it to end as a job whose engine went away while it ran."""
        self.lost = True
        self.status, self.reason, self.exit_code = "failed", "engine_lost", -1
        self.expect_cut_log()

    def expect_cut_log(self) -> None:
        """Expect a beginning of its log only."""
        self.max_lines, self.lines = self.lines or self.max_lines, None

    def expect_no_outputs(self) -> None:
        """Expect its outputs to fail: there is nothing that reads them."""
        self.outputs = ("failed",) * len(self.outputs)
        self.upload, self.content = "", None


@dataclass(frozen=True)
class Refusal:
    """An answer to a POST or DELETE other than success. `status` is None if there was no answer."""

    status: int | None = None
    retry_after: str | None = None


class Load:
    """Posts jobs like a client that repeats unanswered requests, and records how each job must end."""

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
        self.outages: list[Outage] = []
        files.serve("/payload", payload(), ETag='"1"')

    # -- kinds of jobs ----------------------------------------------------------------------------
    def quick(self, exit_code: int = 0, **members: Any) -> Task:
        ends = {"status": "failed", "reason": "exit_code"} if exit_code else {"status": "completed"}
        command = f"echo out; exit {exit_code}"
        return self._post(Task("", "quick", **ends, exit_code=exit_code, lines=["out"]), command=command, **members)

    def long(self, seconds: float, **members: Any) -> Task:
        """Post a job that prints a numbered line every 100 ms, and exits with 7."""
        count = round(seconds / LONG_STEP)
        command = f"i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo line $i; sleep {LONG_STEP}; done; exit 7"
        lines = [f"line {number}" for number in range(1, count + 1)]
        return self._post(Task("", "long", "failed", "exit_code", 7, lines=lines), command=command, **members)

    def exits_on_sigterm(self) -> Task:
        """Post a job that prints a line every 100 ms for an hour, and exits with 0 on SIGTERM."""
        command = "trap 'exit 0' TERM; i=0; while true; do i=$((i+1)); echo line $i; sleep 0.1 & wait; done"
        lines = [f"line {number}" for number in range(1, 36_001)]
        return self._post(Task("", "exits on SIGTERM", "completed", max_lines=lines), command=command, timeoutSeconds=3600)

    def big_log(self, bursts: int, lines: int = 2000) -> Task:
        """Post a job that prints `lines` lines at once, `bursts` times."""
        command = f"k=0; while [ $k -lt {bursts} ]; do k=$((k+1)); seq $((k*{lines}+1)) $((k*{lines}+{lines})); sleep 0.2; done"
        expected = [str(number) for number in range(lines + 1, (bursts + 1) * lines + 1)]
        return self._post(Task("", "big log", "completed", lines=expected), command=command, memory=32)

    def transfer(self) -> Task:
        """Post a job that downloads 100 MiB and uploads them again."""
        path = f"/uploaded-{time.monotonic_ns()}"
        return self._post(
            Task(
                "",
                "transfer",
                "completed",
                lines=[f"{payload_sha256()}  in"],
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
        """Post a job with a file as input, and its content as an event output."""
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
            Task("", "without input", "failed", "input_failed", -1, lines=[], min_starts=0, max_starts=0, inputs=("failed",)),
            command="true",
            inputs=[{"type": "download", "path": "in", "url": self._files.url("/nothing")}],
        )

    def cancelled(self, after: float = 0.0, **members: Any) -> Task:
        """Post a long job that is cancelled `after` seconds, running or not."""
        task = self._endless("cancelled", **members)
        timer = threading.Timer(after, self.cancel, [task])
        self._timers.append(timer)
        timer.start()
        return task

    def ignores_sigterm(self) -> Task:
        """Post a job that ignores SIGTERM, for the caller to cancel."""
        return self._endless("ignores SIGTERM", before="trap '' TERM; ")

    def _endless(self, kind: str, before: str = "", **members: Any) -> Task:
        lines = [f"line {number}" for number in range(1, 6001)]
        command = before + "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.1; done"
        task = Task("", kind, "cancelled", "cancelled", max_lines=lines, min_starts=0)
        return self._post(task, command=command, timeoutSeconds=600, **members)

    def mixed(self, seconds: float, transfers: int = 1) -> None:
        """Post some jobs of every kind, in random order. The long ones run for about `seconds`."""
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
    def posting_more(self) -> Iterator[None]:
        """Post a small job every second for as long as the context lasts."""
        ended = threading.Event()

        def post() -> None:
            kinds: list[Callable[[], object]] = [self.quick, lambda: self.quick(5), self.file_and_event, self.cancelled]
            number = 0
            while not ended.wait(_POST_PAUSE):
                kinds[number % len(kinds)]()
                number += 1

        thread = threading.Thread(target=post, name="post more")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextmanager
    def engine_away(self) -> Iterator[None]:
        """Record that the engine is away for as long as the context lasts, while its processes continue."""
        begin = datetime.now(UTC)
        yield
        self.outages.append(Outage(begin, datetime.now(UTC)))

    def close(self) -> None:
        """Cancel the timers."""
        for timer in self._timers:
            timer.cancel()

    # -- requests -- -------------------------------------------------------------------------
    def _post(self, task: Task, **members: Any) -> Task:
        with self._lock:
            self._number += 1
            task.id = f"job-{self._number}"
        callback = {"url": self._receiver.url, "key": KEY}
        body = {"image": "alpine:latest", "id": task.id, "callback": callback, **SMALL, **members}
        answer = self._request("POST", "/v1/jobs", json=body)
        # If the answer was lost after the job was stored, its id is in use.
        assert answer.status_code in (HTTPStatus.ACCEPTED, HTTPStatus.CONFLICT), answer.text
        self.tasks.append(task)
        return task

    def cancel(self, task: Task) -> None:
        answer = self._request("DELETE", f"/v1/jobs/{task.id}")
        assert answer.status_code == HTTPStatus.NO_CONTENT, answer.text

    def _request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Repeat a request until the service accepts or refuses it."""
        deadline = time.monotonic() + _RETRY_SECONDS
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
                time.sleep(_RETRY_PAUSE)

    # -- waiting ------------------------------------------------------------------------------------
    def wait_until_running(self, *tasks: Task) -> None:
        """Wait until each has printed something."""
        for task in tasks:
            task.min_lines = wait_for(lambda task=task: len(self._service.get_log(task.id)), 60, "its output", step=_RETRY_PAUSE)

    def wait_until_done(self, timeout: float = 180) -> None:
        """Wait until every job is complete and its callback has received the event."""
        deadline = time.monotonic() + timeout

        def left() -> float:
            return max(1.0, deadline - time.monotonic())

        try:
            wait_for(lambda: self._incomplete() == [], left(), "all jobs to be complete", step=_POLL_PAUSE)
        finally:
            for job in self._incomplete():
                print("Not complete:", job)  # pytest shows it with a failure
        missing = {task.id for task in self.tasks}

        def all_received() -> bool:
            completed = {event["subject"] for event in self._receiver.events if event["type"].endswith(".complete")}
            return missing <= completed

        wait_for(all_received, left(), "all complete events", step=_POLL_PAUSE)

    def _incomplete(self) -> list[tuple[Any, ...]]:
        """Return what is known of the jobs that are not complete."""
        columns = "id, status, reason, doing, claims, refused_starts, owner_id, started_at, finished_at, exited_at"
        return self._service.query(f"SELECT {columns} FROM jobs_job WHERE completed_at IS NULL")

    def check_refusals(self) -> None:
        """Raise `AssertionError` unless each refusal was no answer at all, or a 503 with `Retry-After`."""
        assert {(each.status, each.retry_after is not None) for each in self.refusals} <= {(None, False), (503, True)}
