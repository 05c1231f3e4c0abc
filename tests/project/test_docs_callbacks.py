"""The programs in docs/callbacks.md do what the document says, all alike."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
from environment import free_port, without_service

from callbacks import signing
from callbacks.cloudevents import MAX_BYTES, Envelope
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.stateless

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "callbacks.md").read_text()
KEY = "whsec_c2VjcmV0IGJ5dGVz"
START, LOG, EXIT = "orchestrator.job.start", "orchestrator.job.log", "orchestrator.job.exit"
SERVICE, SIDECAR = "orchestrator/service", "orchestrator/sidecar"
BUILD_SECONDS, STOP_SECONDS = 100, 10
TRIES = 3  # a port that was free a moment ago may be taken


@dataclass(frozen=True)
class Language:
    """How a program of the guide is run. `command` is given the directory of its file, and the port."""

    name: str
    file: str
    tool: str
    command: Callable[[Path, int], list[str]]
    build: list[str] = field(default_factory=list)


PYTHON = Language("python", "callback.py", sys.executable, lambda place, _: [sys.executable, str(place / "callback.py")])
GO = Language(
    "go", "callback.go", "go", lambda place, _: [str(place / "callback")], ["go", "build", "-o", "callback", "callback.go"]
)
PHP = Language("php", "callback.php", "php", lambda place, port: ["php", "-S", f"127.0.0.1:{port}", str(place / "callback.php")])
JAVASCRIPT = Language("javascript", "callback.js", "node", lambda place, _: ["node", str(place / "callback.js")])


class NotStarted(Exception):
    """The program ended before it listened."""


@dataclass(frozen=True)
class Program:
    """A program that is ready to run."""

    language: Language
    place: Path

    @contextmanager
    def running(self, directory: Path, key: str = KEY) -> Iterator["Callback"]:
        """Run it, with its state in `directory`, and yield once it listens. Raises `NotStarted`."""
        with requests.Session() as session:
            session.trust_env = False
            session.headers["Connection"] = "close"  # an idle connection may be closed while this machine is busy
            for _ in range(TRIES):
                port = free_port()
                callback = Callback(f"http://127.0.0.1:{port}/", key, directory / "stdout", session)
                process = self._start(directory, port, key)
                try:
                    wait_for(
                        lambda p=process, c=callback: p.poll() is not None or c.listens(), what=f"{self.language.name} to listen"
                    )
                    if process.poll() is None:
                        yield callback
                        return
                finally:
                    process.terminate()
                    process.wait(STOP_SECONDS)
        raise NotStarted((directory / "stderr").read_text())

    def _start(self, directory: Path, port: int, key: str) -> subprocess.Popen[bytes]:
        variables = {"CALLBACK_KEY": key, "CALLBACK_STATE": str(directory / "state"), "PORT": str(port)}
        with (directory / "stdout").open("wb") as stdout, (directory / "stderr").open("wb") as stderr:
            return subprocess.Popen(
                self.language.command(self.place, port),
                cwd=directory,
                env=without_service() | variables,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )


@dataclass(frozen=True)
class Callback:
    """A running program, and what it has printed."""

    url: str
    key: str
    output: Path
    session: requests.Session

    @property
    def lines(self) -> list[str]:
        return self.output.read_text().splitlines()

    def listens(self) -> bool:
        """Return whether the program listens. Another server that took the port would answer with another status."""
        try:
            return self.session.post(self.url, b"", timeout=20).status_code == 401
        except requests.RequestException:
            return False

    def send(self, envelope: Envelope, **data: Any) -> int:
        """Send an event as the service does, and return the status of the answer."""
        return self.post(envelope.body(data), envelope)

    def post(self, body: bytes, envelope: Envelope, *, age: int = 0, key: str | None = None, **forged: str) -> int:
        """Send these bytes, signed with `key` as of `age` seconds ago, and replace the headers in `forged` ('_' for '-')."""
        headers = envelope.headers() | signing.headers([key or self.key], envelope.id, int(time.time()) - age, body)
        headers |= {name.replace("_", "-"): value for name, value in forged.items()}
        return self.session.post(self.url, body, headers=headers, timeout=20).status_code


def event(number: int, type_: str = START, *, subject: str = "report-1", source: str = SERVICE) -> Envelope:
    time_ = "2026-01-31T12:00:04.190231Z"
    return Envelope(id=str(uuid4()), source=source, type=type_, subject=subject, time=time_, jobsequence=number)


@pytest.fixture(scope="module", params=[PYTHON, GO, PHP, JAVASCRIPT], ids=lambda language: language.name)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The program in this language, as the guide shows it."""
    language: Language = request.param
    if shutil.which(language.tool) is None:
        pytest.skip(f"{language.tool} is not installed")
    place = tmp_path_factory.mktemp(language.name)
    found = re.search(rf"^```{language.name}\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
    assert found, f"the guide shows no program in {language.name}"
    (place / language.file).write_text(found[1])
    if language.build:
        # Download nothing: neither a newer toolchain nor modules.
        offline = {"GO111MODULE": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local", "GOPROXY": "off"}
        built = subprocess.run(
            language.build,
            cwd=place,
            env=os.environ | offline,
            capture_output=True,
            text=True,
            check=False,
            timeout=BUILD_SECONDS,
        )
        assert built.returncode == 0, built.stderr
    return Program(language, place)


@pytest.fixture
def callback(program: Program, tmp_path: Path) -> Iterator[Callback]:
    with program.running(tmp_path) as running:
        yield running


def test_an_event_is_stored_once(callback: Callback) -> None:
    # Given an event
    first = event(1)

    # When it arrives twice, and then another event
    answers = [callback.send(one) for one in (first, first, event(2, EXIT, source=SIDECAR))]

    # I expect all to be accepted, and the repeated one to be a duplicate
    assert answers == [200, 200, 200]
    assert callback.lines == [
        "new report-1 1 orchestrator.job.start",
        "duplicate report-1 1 orchestrator.job.start",
        "new report-1 2 orchestrator.job.exit",
    ]


def test_simultaneous_attempts_are_one_event(callback: Callback) -> None:
    # Given an event
    one = event(1)
    body = one.body({})
    headers = one.headers() | signing.headers([callback.key], one.id, int(time.time()), body)

    # When it arrives several times at once
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(callback.session.post, callback.url, body, headers=headers, timeout=20) for _ in range(16)]
        statuses = [answer.result().status_code for answer in answers]

    # I expect one of them to be stored
    assert statuses == [200] * 16
    assert sorted(callback.lines) == [
        *["duplicate report-1 1 orchestrator.job.start"] * 15,
        "new report-1 1 orchestrator.job.start",
    ]


def test_two_sources_may_use_the_same_id(callback: Callback) -> None:
    # Given two events with one id, from two sources
    service, sidecar = (
        Envelope(id="1", source=source, type=LOG, subject="a", time="2026-01-31T12:00:04Z", jobsequence=number)
        for source, number in ((SERVICE, 1), (SIDECAR, 2))
    )

    # When both arrive
    answers = [callback.send(service), callback.send(sidecar)]

    # I expect both to be stored
    assert answers == [200, 200]
    assert callback.lines == ["new a 1 orchestrator.job.log", "new a 2 orchestrator.job.log"]


def test_a_late_event_fills_a_gap_and_is_not_a_duplicate(callback: Callback) -> None:
    # Given a job's events, and one of another job
    first, second, third, fourth = event(1), event(2, LOG), event(3, LOG), event(4, EXIT)
    other = event(1, subject="constructor")  # objects of some languages have a member of this name

    # When the second arrives after the others, and then again
    answers = [callback.send(one) for one in (first, third, other, second, second, fourth)]

    # I expect a gap, a late event that fills it, and then a duplicate; and no gap in the other job
    assert answers == [200] * 6
    assert callback.lines == [
        "new report-1 1 orchestrator.job.start",
        "gap report-1 expected 2 got 3",
        "new report-1 3 orchestrator.job.log",
        "new constructor 1 orchestrator.job.start",
        "late report-1 2 orchestrator.job.log",
        "duplicate report-1 2 orchestrator.job.log",
        "new report-1 4 orchestrator.job.exit",
    ]


def test_missing_first_events_are_a_gap(callback: Callback) -> None:
    assert callback.send(event(3)) == 200
    assert callback.lines == ["gap report-1 expected 1 got 3", "new report-1 3 orchestrator.job.start"]


def test_an_unsigned_request_is_refused(callback: Callback) -> None:
    # Given an event with its signatures
    one = event(1)
    body = one.body({"exitCode": 0})
    another_only = signing.headers(["another"], one.id, int(time.time()), body)["webhook-signature"]
    by_the_key = signing.headers([callback.key], one.id, int(time.time()), body)["webhook-signature"]

    # When anything differs from what was signed, or the signature is missing or made with another key
    answers = [
        callback.session.post(callback.url, body, headers=one.headers(), timeout=20).status_code,
        callback.session.post(callback.url, b"", timeout=20).status_code,
        callback.post(body, one, key="another"),
        callback.post(body, one, key="whsec_YW5vdGhlcg=="),
        callback.post(body, one, webhook_signature=another_only),
        callback.post(body, one, webhook_signature=by_the_key[:-1]),
        callback.post(body, one, webhook_signature=by_the_key.removeprefix("v1,")),
        callback.post(body, one, webhook_signature="v1,é v1,"),
        callback.post(body, one, webhook_signature=""),
        callback.post(body, one, webhook_id=event(1).id),
        callback.post(body, one, webhook_timestamp=str(int(time.time()) - 10)),
        callback.post(body, one, webhook_timestamp="now"),
    ]
    headers = one.headers() | signing.headers([callback.key], one.id, int(time.time()), body)
    answers += [
        callback.session.post(callback.url, changed, headers=headers, timeout=20).status_code
        for changed in (body.replace(b":0", b":1"), body + b" ", b"")
    ]

    # I expect 401 every time, and nothing to be stored
    assert answers == [401] * 15
    assert callback.lines == []


@pytest.mark.parametrize("age", [400, -400])
def test_an_old_or_future_timestamp_is_refused(callback: Callback, age: int) -> None:
    one = event(1)
    assert callback.post(one.body({}), one, age=age) == 401
    assert callback.lines == []


def test_clocks_may_differ_by_some_minutes(callback: Callback) -> None:
    one, other = event(1), event(2, EXIT)
    assert callback.post(one.body({}), one, age=240) == 200
    assert callback.post(other.body({}), other, age=-240) == 200


@pytest.mark.parametrize("keys", [("another", KEY), (KEY, "another")], ids=["old key", "new key"])
def test_an_event_with_two_signatures_matches_either_key(callback: Callback, keys: tuple[str, str]) -> None:
    """As the service signs it while the receiver changes from the second key to the first."""
    one = event(1)
    body = one.body({})
    headers = one.headers() | signing.headers(keys, one.id, int(time.time()), body)
    assert callback.session.post(callback.url, body, headers=headers, timeout=20).status_code == 200
    assert callback.lines == ["new report-1 1 orchestrator.job.start"]


def test_the_error_code_is_printed(callback: Callback) -> None:
    # Given events with an error, and with data that is none
    data = [
        {"error": {"code": "job_oom", "message": "it needed more than its 64 MiB of memory"}},
        {"error": "a sentence"},
        {"error": {"message": "no code"}},
        {"error": None},
    ]

    # When they arrive
    answers = [callback.send(event(number, EXIT), **each) for number, each in enumerate(data, 1)]

    # I expect the code if there is one
    assert answers == [200] * 4
    assert callback.lines == [
        "new report-1 1 orchestrator.job.exit job_oom",
        *(f"new report-1 {number} orchestrator.job.exit" for number in (2, 3, 4)),
    ]


def test_a_signed_body_that_is_not_an_event_is_refused(callback: Callback) -> None:
    # Given bodies that are not events
    one = event(1)
    whole = one.body({}).decode()
    bodies = [
        b"",
        b"garbage",
        b"\xff",
        b"null",
        b"[]",
        b"1",
        b'"text"',
        b"{}",
        whole[:-1].encode(),
        whole.encode().replace(b"report-1", b"\xff"),
    ]
    bodies += [
        whole.replace(*change).encode()
        for change in [
            ('"jobsequence":1', '"jobsequence":"1"'),
            ('"jobsequence":1', '"jobsequence":0'),
            ('"jobsequence":1', '"jobsequence":1.5'),
            ('"jobsequence":1', '"sequence":1'),
            ('"subject":"report-1"', '"subject":null'),
            ('"subject":"report-1"', '"subject":""'),
            (one.id, ""),
            ('"specversion":"1.0"', '"specversion":"2.0"'),
        ]
    ]

    # When they arrive with valid signatures
    answers = [callback.post(body, one) for body in bodies]

    # I expect 400, and nothing to be stored: the event itself is then not a duplicate
    assert answers == [400] * len(bodies)
    assert callback.send(one) == 200
    assert callback.lines == ["new report-1 1 orchestrator.job.start"]


def test_an_event_of_the_maximum_size_is_accepted(callback: Callback) -> None:
    # Given an event of the maximum size
    one = event(1, LOG)
    room = MAX_BYTES - len(one.body({"line": ""}))
    body = one.body({"line": "é" * (room // 2) + "x" * (room % 2)})
    assert len(body) == MAX_BYTES

    # When it arrives, and then one byte more
    answers = [callback.post(body, one), callback.post(body + b" ", one)]

    # I expect the first to be stored, and the second to be refused
    assert answers == [200, 413]
    assert callback.lines == ["new report-1 1 orchestrator.job.log"]


def test_only_post_is_allowed(callback: Callback) -> None:
    assert callback.session.get(callback.url, timeout=20).status_code in (405, 501)
    assert callback.send(event(1)) == 200


@pytest.mark.parametrize("key", ["plain", "schlüssel mit leerzeichen", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_+/8="])
def test_any_key_is_accepted(program: Program, tmp_path: Path, key: str) -> None:
    # Given a program with this key
    with program.running(tmp_path, key) as callback:
        # When an event arrives that is signed with it, and one that is signed with another
        one = event(1)
        answers = [callback.send(one), callback.post(one.body({}), one, key=key + "A===")]

    # I expect the first to be stored
    assert answers == [200, 401]
    assert callback.lines == ["new report-1 1 orchestrator.job.start"]


@pytest.mark.parametrize("key", ["", "whsec_"])
def test_without_a_key_every_event_is_refused(program: Program, tmp_path: Path, key: str) -> None:
    # Given an empty key, with which a program need not start
    with suppress(NotStarted), program.running(tmp_path, key) as callback:
        # When an event arrives that is signed with it, I expect it to be refused
        assert callback.send(event(1)) == 401
    assert (tmp_path / "stdout").read_text() == ""


@pytest.mark.parametrize("program", [PYTHON, PHP], ids=lambda language: language.name, indirect=True)
def test_state_in_a_file_survives_a_restart(program: Program, tmp_path: Path) -> None:
    # Given a program that has stored an event
    first = event(1)
    with program.running(tmp_path) as callback:
        assert callback.send(first) == 200

    # When it is restarted, and the event arrives again, and then one after a gap
    with program.running(tmp_path) as callback:
        answers = [callback.send(first), callback.send(event(3, EXIT))]

    # I expect the first to be a duplicate
    assert answers == [200, 200]
    assert callback.lines == [
        "duplicate report-1 1 orchestrator.job.start",
        "gap report-1 expected 2 got 3",
        "new report-1 3 orchestrator.job.exit",
    ]
