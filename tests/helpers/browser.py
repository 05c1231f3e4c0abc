"""Headless Chromium on the pages of the service, which a thread of the test serves."""

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from django.contrib.auth.models import User
from django.core.wsgi import get_wsgi_application
from django.db import connections
from django.test import Client

# A page is opened in a test of its own process, which takes seconds on a busy machine.
needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's chromium is not installed")

OPTIONS = (
    "--headless",
    "--no-sandbox",  # it runs as root
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def logged_in_as(user: User, on_request: Callable[[str], None] = lambda _: None) -> Iterator[str]:
    """Serve the pages as this user sees them, without a login, and yield their address.

    `on_request` is called with the path of each request, before it is answered. The test must use `transaction=True`.
    """
    client = Client()
    client.force_login(user)
    session = client.cookies["sessionid"].value
    application = get_wsgi_application()

    def logged_in(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        environ["HTTP_COOKIE"] = f"sessionid={session}; {environ.get('HTTP_COOKIE', '')}"
        on_request(environ["PATH_INFO"])
        answer: Any = application(environ, start_response)
        try:
            yield from answer
        finally:
            answer.close()
            connections.close_all()

    server = make_server("127.0.0.1", 0, logged_in, server_class=_Server, handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def dom_after(address: str, seconds: float) -> str:
    """Open a page, let its scripts run for some seconds of its own time, and return its HTML."""
    return _chromium(address, seconds, "--dump-dom")


def screenshot(address: str, path: Path, *, width: int = 1280, height: int = 2200, dark: bool = False) -> None:
    """Save a picture of a page."""
    scheme = ("--force-dark-mode",) if dark else ()
    _chromium(address, 3, f"--screenshot={path}", f"--window-size={width},{height}", *scheme)


def _chromium(address: str, seconds: float, *options: str) -> str:
    virtual_time = f"--virtual-time-budget={round(seconds * 1000)}"
    command = ["chromium", *OPTIONS, virtual_time, *options, address]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout
