"""Run a job on a service of its own and print every event. Exit with 0 only if everything happened as promised.

The service runs in embedded mode with its own state, so it does not touch a service that is already running.
"""

import json
import os
import queue
import secrets
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import leftovers
import requests
from engine import EngineError, borrowed, state_directory
from environment import free_port, without_service
from image import ImageError
from peers import Event, Peers, served
from processes import unwind_on_signals

START_SECONDS = 60
JOB_SECONDS = 120
STOP_SECONDS = 30

TEXT = b"hello from the download\nand a second line\n"
SCRIPT = """\
echo "turning data/input.txt into capitals"
tr a-z A-Z < data/input.txt > data/output.txt
printf '{"lines": %d, "bytes": %d}' "$(wc -l < data/output.txt)" "$(wc -c < data/output.txt)" > data/metrics.json
echo "done"
"""
METRICS = {"lines": 2, "bytes": len(TEXT)}
NEXT = """
Where to look next:
  bin/serve                        start the service, until Ctrl-C
  bin/run alpine 'echo hello'      then run a job on it, from another terminal
  {docs:<29}    the documentation of its API; docs/usage.md has examples
  {admin:<29}    its admin; bin/serve prints the login"""
# The events that are expected, in this order; `log` stands for one or more.
ORDER = ["input", "input", "start", "log", "exit", "output", "output", "complete"]


class DemoFailed(Exception):
    """Something did not happen as promised; the message says what, in one sentence."""


def job(identity: str, peers: Peers) -> dict[str, Any]:
    return {
        "id": identity,
        "image": "alpine:latest",
        "command": "sh scripts/process.sh",
        "cpu": 0.5,
        "memory": 64,
        "timeoutSeconds": 60,
        "inputs": [
            {"id": "script", "type": "file", "path": "scripts/process.sh", "content": SCRIPT},
            {"id": "text", "type": "download", "path": "data/input.txt", "url": f"{peers.urls['download']}/input.txt"},
        ],
        "outputs": [
            {"id": "capitals", "type": "upload", "path": "data/output.txt", "url": f"{peers.urls['upload']}/output.txt"},
            {"id": "metrics", "type": "event", "path": "data/metrics.json"},
        ],
        "callback": {"url": f"{peers.urls['webhook']}/events", "key": peers.key},
    }


def run(state: Path) -> None:
    """Run the demo. Raises `DemoFailed`, or an error if no engine or service can be started."""
    say("Looking for a Docker engine with alpine:latest ...")
    peers = Peers(key="whsec_" + b64encode(secrets.token_bytes(24)).decode(), content=TEXT)
    with borrowed(state) as host, tempfile.TemporaryDirectory(prefix="demo-", dir=state) as directory, served(peers):
        say(f"  {host}")
        with service(host, Path(directory)) as api:
            with requests.Session() as session:
                session.trust_env = False  # no proxy: the service is on this machine
                identity = submit(session, api, peers)
                events = received(peers)
                status = session.get(f"{api}/v1/jobs/{identity}", timeout=10).json()
            check(events, peers, status)
    say("\nEverything worked: both inputs, the run, its log and both outputs; every event was signed and in order.")
    say(where_to_look_next(os.environ))


def where_to_look_next(environment: Mapping[str, str]) -> str:
    """Return the last words of the demo, with the addresses that `bin/serve` has in this environment."""
    url = environment.get("PUBLIC_URL", "").rstrip("/") or f"http://127.0.0.1:{environment.get('PORT') or 8080}"
    return NEXT.format(docs=f"{url}/v1/docs", admin=f"{url}/admin/")


def submit(session: requests.Session, api: str, peers: Peers) -> str:
    """Post the job and return its id."""
    identity = f"demo-{secrets.token_hex(4)}"
    description = job(identity, peers)
    say(f"\nPOST /v1/jobs\n{json.dumps(redacted(description), indent=2)}")
    answer = session.post(f"{api}/v1/jobs", json=description, timeout=30)
    say(f"{answer.status_code} {answer.text.strip()}\n\nEvents, as they arrive:")
    if answer.status_code != 202:
        raise DemoFailed(f"The job was not accepted ({answer.status_code}).")
    return identity


def redacted(description: dict[str, Any]) -> dict[str, Any]:
    return description | {"callback": description["callback"] | {"key": "whsec_..."}}


def received(peers: Peers) -> list[Event]:
    """Wait for `complete`, and return each event once, in order of arrival. Raises `DemoFailed`."""
    events: dict[str, Event] = {}
    deadline = time.monotonic() + JOB_SECONDS
    while kind(next(reversed(events.values()), None)) != "complete":
        try:
            event = peers.events.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise DemoFailed(f"The job's last event did not arrive within {JOB_SECONDS} seconds.") from None
        if event.body["id"] not in events:
            events[event.body["id"]] = event
            show(event)
    return list(events.values())


def kind(event: Event | None) -> str:
    return event.body["type"].removeprefix("orchestrator.job.") if event else ""


def show(event: Event) -> None:
    details = {name: value for name, value in event.body["data"].items() if name not in ("jobId", "meta")}
    say(f"  {event.body['jobsequence']}  {kind(event):<9} {event.fault or 'signed'}   {json.dumps(details)}")


def check(events: list[Event], peers: Peers, status: dict[str, Any]) -> None:
    """Raise `DemoFailed` if anything is not as promised."""
    kinds = [kind(event) for event in events]
    once = [name for at, name in enumerate(kinds) if name != "log" or kinds[at - 1] != "log"]
    outputs = {event.body["data"]["outputId"]: event.body["data"] for event in events if kind(event) == "output"}
    exits = [event.body["data"] for event in events if kind(event) == "exit"]
    problems = {
        "An event's signature is wrong.": any(event.fault for event in events),
        f"The events are in the wrong order: {', '.join(kinds)}.": once != ORDER,
        "The events are not numbered 1, 2, 3, ...": [event.body["jobsequence"] for event in events]
        != list(range(1, len(events) + 1)),
        "The job did not end with exit code 0.": [status.get("status"), *((data["status"], data["exitCode"]) for data in exits)]
        != ["completed", ("completed", 0)],
        "The uploaded file is not the download in capitals.": peers.uploads.get("/output.txt") != TEXT.upper(),
        "The event output is not what the job wrote.": outputs.get("metrics", {}).get("content") != METRICS,
    }
    for sentence, is_true in problems.items():
        if is_true:
            raise DemoFailed(sentence)


@contextmanager
def service(host: str, directory: Path) -> Iterator[str]:
    """Run the embedded service on this engine, yield its URL, and remove everything that it left on the engine."""
    say("Starting the service ...")
    port = free_port()
    environment = without_service() | {
        "STATE_DIR": str(directory),
        "DOCKER_HOST": host,
        "PORT": str(port),
        "METRICS_PORT": str(free_port()),
    }
    log = directory / "service.log"
    try:
        with log.open("wb") as output:
            embedded = [sys.executable, "-m", "orchestrator_site.embedded"]
            process = subprocess.Popen(embedded, env=environment, stdout=output, stderr=output, start_new_session=True)
        try:
            api = f"http://127.0.0.1:{port}"
            wait_until_ready(api, process)
            say(f"  {api}")
            yield api
        finally:
            stop(process)
            remove_leftovers(host, directory)
    except DemoFailed:
        say(f"\nThe end of the service's log:\n{tail(log)}")
        raise


def wait_until_ready(api: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the service is ready. Raises `DemoFailed`."""
    deadline = time.monotonic() + START_SECONDS
    with requests.Session() as session:
        session.trust_env = False
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(requests.RequestException):
                if session.get(f"{api}/readyz", timeout=5).ok:
                    return
            time.sleep(0.1)
    raise DemoFailed(
        "The service has ended." if process.poll() is not None else f"The service is not ready after {START_SECONDS} seconds."
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def remove_leftovers(host: str, directory: Path) -> None:
    """Remove what this installation left on the engine."""
    try:
        with closing(sqlite3.connect(directory / "orchestrator.sqlite3")) as database:
            names = [name for (name,) in database.execute("SELECT name FROM jobs_instance")]
    except sqlite3.Error:  # it failed before it had a name
        return
    for name in names:
        leftovers.remove(host, name)


def tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    unwind_on_signals()
    try:
        run(state_directory())
    except (DemoFailed, EngineError, ImageError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
