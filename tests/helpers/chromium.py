"""A headless Chromium (Debian's package), driven over two pipes with the DevTools protocol."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.helpers.waiting import wait_for

STOP_SECONDS = 60
NARROW = 600  # pixels: a phone


class Page:
    """A page of the browser: what it shows, and the errors in its console."""

    def __init__(self, commands: int, answers: int) -> None:
        self.errors: list[str] = []
        self._expired = 0
        self._commands, self._answers = commands, answers
        self._unread = b""
        self._number = 0
        self._session: str | None = None
        self._size = (1280, 900)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setScrollbarsHidden", hidden=True)
        self.resize(*self._size)

    def log_in(self, url: str, session_id: str) -> None:
        """Set the cookie of a session of Django's."""
        self.send("Network.setCookie", name="sessionid", value=session_id, domain=urlsplit(url).hostname, path="/")

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window, in pixels."""
        self._size = (width, height)
        self._set_metrics(width, height)

    def set_dark(self, dark: bool) -> None:
        """Say whether the user prefers dark pages."""
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def open(self, url: str) -> None:
        """Open an address, and wait until it is loaded."""
        self.send("Page.navigate", url=url)
        wait_for(lambda: self.evaluate("document.readyState === 'complete' && location.href !== 'about:blank'"), what=url)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    @property
    def text(self) -> str:
        """What a person can read on the page."""
        return str(self.evaluate("document.body.innerText"))

    def pass_time(self, seconds: float) -> None:
        """Let time pass for the scripts of the page, as fast as they can. After that its clock stands still."""
        before = self._expired
        self.send("Emulation.setVirtualTimePolicy", policy="pauseIfNetworkFetchesPending", budget=seconds * 1000)
        while self._expired == before:
            self._next()

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key and release it."""
        for event in ("keyDown", "keyUp"):
            typed = {"text": text} if text and event == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=event, key=key, code=key, windowsVirtualKeyCode=code, **typed)

    def screenshot(self, path: Path) -> None:
        """Store a picture of the whole page, as in a window that is high enough for it."""
        width, height = self._size
        self._set_metrics(width, max(height, self.evaluate("document.documentElement.scrollHeight")))
        picture = self.send("Page.captureScreenshot", format="png")
        self._set_metrics(width, height)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def send(self, method: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol, and return its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _set_metrics(self, width: int, height: int) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < NARROW)

    def _next(self) -> Any:
        while b"\0" not in self._unread:
            data = os.read(self._answers, 1 << 20)
            assert data, "Chromium has ended"
            self._unread += data
        message, self._unread = self._unread.split(b"\0", 1)
        content = json.loads(message)
        self._note(content.get("method"), content.get("params"))
        return content

    def _note(self, method: str | None, event: Any) -> None:
        match method:
            case "Emulation.virtualTimeBudgetExpired":
                self._expired += 1
            case "Runtime.exceptionThrown":
                self.errors.append(str(event["exceptionDetails"].get("exception", event["exceptionDetails"])))
            case "Log.entryAdded" if event["entry"]["level"] in ("error", "warning"):
                self.errors.append(f"{event['entry']['text']} {event['entry'].get('url', '')}")
            case "Runtime.consoleAPICalled" if event["type"] in ("error", "warning"):
                self.errors.append(" ".join(str(argument.get("value", "")) for argument in event["args"]))


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """Run a browser with a profile of its own. Skip the test if there is none."""
    program = shutil.which("chromium") or pytest.skip("needs Chromium")
    read_commands, commands = os.pipe()
    answers, write_answers = os.pipe()
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
    ]
    # Chromium expects the pipes as file descriptors 3 and 4.
    command = f'exec "$0" "$@" 3<&{read_commands} 4>&{write_answers}'
    process = subprocess.Popen(
        ["/bin/bash", "-c", command, program, *options],
        pass_fds=(read_commands, write_answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_commands)
    os.close(write_answers)
    try:
        yield Page(commands, answers)
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
        os.close(commands)
        os.close(answers)


@pytest.fixture
def operator_page(tmp_path: Path, live_server: Any) -> Iterator[Page]:
    """A browser in which an operator, olga, has logged in to the admin of `live_server`."""
    client = Client()
    client.force_login(User.objects.create_superuser("olga"))
    with chromium(tmp_path / "profile") as page:
        page.log_in(live_server.url, client.cookies["sessionid"].value)
        yield page
