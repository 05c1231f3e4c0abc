"""A headless Chromium (Debian's package), driven over two pipes with the DevTools protocol."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.helpers import no_netlink
from tests.helpers.waiting import wait_for

STOP_SECONDS = 60
NARROW = 600  # pixels: a phone


class Browser:
    """A running Chromium. Its messages are read by one page at a time."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._unread = b""
        self._number = 0

    def write(self, message: dict[str, Any]) -> int:
        """Send a command of the DevTools protocol, and return its number."""
        self._number += 1
        os.write(self._commands, json.dumps({**message, "id": self._number}).encode() + b"\0")
        return self._number

    def read(self) -> Any:
        """Return the next message: an event, or the answer to a command."""
        while b"\0" not in self._unread:
            data = os.read(self._answers, 1 << 20)
            assert data, "Chromium has ended"
            self._unread += data
        message, self._unread = self._unread.split(b"\0", 1)
        return json.loads(message)

    @contextmanager
    def page(self) -> Iterator["Page"]:
        """Provide a page that shares neither cookies nor storage with any other one."""
        context = Target(self).send("Target.createBrowserContext")["browserContextId"]
        try:
            yield Page(self, context)
        finally:
            Target(self).send("Target.disposeBrowserContext", browserContextId=context)


class Target:
    """What takes commands of the DevTools protocol: the browser itself, or a session in it."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._session: str | None = None

    def send(self, method: str, **parameters: Any) -> Any:
        """Send a command, and return its answer."""
        message = {"method": method, "params": parameters} | ({"sessionId": self._session} if self._session else {})
        number = self._browser.write(message)
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _next(self) -> Any:
        message = self._browser.read()
        if "method" in message and message.get("sessionId") == self._session:
            self._note(message["method"], message["params"])
        return message

    def _note(self, method: str, event: Any) -> None:
        """Take notice of an event."""


class Page(Target):
    """A page of the browser: what it shows, and the errors in its console."""

    def __init__(self, browser: Browser, context: str) -> None:
        super().__init__(browser)
        self.errors: list[str] = []
        self._expired = 0
        self._size = (1280, 900)
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        # Scripts wait while a page is hidden, and Chromium may take one for that if it does not have the focus.
        self.send("Emulation.setFocusEmulationEnabled", enabled=True)
        self.send("Page.bringToFront")
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

    def draw(self) -> None:
        """Wait until the browser has drawn what its scripts have made of the page."""
        self.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(() => drawn(true))))")

    def screenshot(self, path: Path) -> None:
        """Store a picture of the whole page, as in a window that is high enough for it."""
        width, height = self._size
        self._set_metrics(width, max(height, self.evaluate("document.documentElement.scrollHeight")))
        picture = self.send("Page.captureScreenshot", format="png")
        self._set_metrics(width, height)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def _set_metrics(self, width: int, height: int) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < NARROW)

    def _note(self, method: str, event: Any) -> None:
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
def chromium(profile: Path) -> Iterator[Browser]:
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
        "--no-startup-window",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
    ]
    # Chromium expects the pipes as file descriptors 3 and 4.
    command = f'exec "$0" "$@" 3<&{read_commands} 4>&{write_answers}'
    process = subprocess.Popen(
        ["/bin/bash", "-c", command, sys.executable, no_netlink.__file__, program, *options],
        pass_fds=(read_commands, write_answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_commands)
    os.close(write_answers)
    try:
        yield Browser(commands, answers)
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
        os.close(commands)
        os.close(answers)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for the tests of a file."""
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def operator_page(browser: Browser, live_server: Any) -> Iterator[Page]:
    """A page in which an operator, olga, has logged in to the admin of `live_server`."""
    client = Client()
    client.force_login(User.objects.create_superuser("olga"))
    with browser.page() as page:
        page.log_in(live_server.url, client.cookies["sessionid"].value)
        yield page
