"""An API server that does what a test tells it to: for what a real one cannot be made to do."""

import json
import queue
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from jobs.engine.kubernetes import ClusterSettings, KubernetesEngine
from jobs.engine.kubernetes.names import JOB_NAME_LABEL, NAME_LABEL, NOT_REQUESTED, REQUESTED, START_LABEL
from orchestrator_site.base.intervals import EngineIntervals
from tests.helpers.clusters import TIMEOUTS

NAMESPACE = "jobs"
END = None  # of a watch


def job(name: str, version: int, *, requested: bool = True, **status: Any) -> dict[str, Any]:
    """Return a Job as the API server describes it."""
    labels = {NAME_LABEL: name, START_LABEL: REQUESTED if requested else NOT_REQUESTED}
    metadata = {"name": name, "uid": f"uid-{name}", "labels": labels, "resourceVersion": str(version)}
    spec = {"suspend": not requested, "template": {"spec": {"containers": [{"name": "job", "image": "i"}], "volumes": []}}}
    return {"metadata": metadata | {"creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": status}


def pod(name: str, version: int, state: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    """Return the pod of the Job with this name, whose process has this state."""
    metadata = {
        "name": f"{name}-pod",
        "uid": f"uid-{name}-pod",
        "labels": {NAME_LABEL: name, JOB_NAME_LABEL: name},
        "ownerReferences": [{"uid": f"uid-{name}"}],
        "resourceVersion": str(version),
    }
    statuses = [] if state is None else [{"name": "job", "state": state}]
    spec = {"nodeName": "node", "containers": [{"name": "job", "image": "i"}]}
    return {"metadata": metadata, "spec": spec, "status": {"phase": "Running", "containerStatuses": statuses, **status}}


RUNNING = {"running": {"startedAt": "2026-01-01T00:00:01Z"}}
ENDED = {
    "terminated": {"exitCode": 3, "reason": "Error", "startedAt": "2026-01-01T00:00:01Z", "finishedAt": "2026-01-01T00:00:09Z"}
}


class ScriptedApi:
    """Its objects, by kind, are listed. What is put into a queue is sent in the current watch of that kind; `END` ends it."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.objects: dict[str, list[dict[str, Any]]] = {"jobs": [], "pods": []}
        self.version = 10  # of the lists
        self.events: dict[str, queue.Queue[dict[str, Any] | None]] = {"jobs": queue.Queue(), "pods": queue.Queue()}
        self.watch_status = 200  # of the next watches
        self.requests: list[tuple[str, str, dict[str, str]]] = []  # method, path, query
        self.bodies: list[tuple[str, Any]] = []  # method, JSON
        self.answers: dict[tuple[str, str], tuple[int, dict[str, Any] | bytes]] = {}  # by method and end of the path
        self.connections = 0  # that were made, those of watches included
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def send(self, kind: str, change: str, changed: dict[str, Any]) -> None:
        self.events[kind].put({"type": change, "object": changed})

    def count(self, method: str, kind: str, *, watch: bool = False) -> int:
        """Return how many requests there were for objects of a kind."""
        found = [one for one in self.requests if one[0] == method and one[1].split("/")[-1] == kind]
        return len([one for one in found if ("watch" in one[2]) == watch])

    def watched_from(self, kind: str) -> list[str]:
        """Return the versions from which this kind was watched."""
        return [query["resourceVersion"] for _, path, query in self.requests if path.endswith(f"/{kind}") and "watch" in query]

    def close(self) -> None:
        for events in self.events.values():
            events.put(END)
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                api.connections += 1

            def _answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if content:
                    api.bodies.append((self.command, json.loads(content)))
                url = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                api.requests.append((self.command, url.path, query))
                for (method, end), (status, body) in api.answers.items():
                    if method == self.command and url.path.endswith(end):
                        return self._send_in_chunks(status, body) if isinstance(body, bytes) else self._send(status, body)
                kind = url.path.split("/")[-1]
                if "watch" in query and api.watch_status == 200:
                    return self._watch(kind)
                if "watch" in query:
                    return self._send(api.watch_status, {"message": "scripted"})
                listed = [one for one in api.objects.get(kind, []) if _selected(one, query.get("labelSelector", ""))]
                return self._send(200, {"items": listed, "metadata": {"resourceVersion": str(api.version)}})

            def _send(self, status: int, body: dict[str, Any]) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _send_in_chunks(self, status: int, body: bytes) -> None:
                self._begin_chunks(status)
                if body:
                    self._send_chunk(body)
                self._send_chunk(b"")

            def _watch(self, kind: str) -> None:
                self._begin_chunks(200)
                while (event := api.events[kind].get()) is not END:
                    self._send_chunk(json.dumps(event).encode() + b"\n")
                self._send_chunk(b"")

            def _begin_chunks(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()

            def _send_chunk(self, data: bytes) -> None:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()

            do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815 - so called by http.server

            def log_message(self, *arguments: Any) -> None:
                pass

        return Handler


def _selected(found: dict[str, Any], selector: str) -> bool:
    labels = found["metadata"].get("labels", {})
    wanted = [part.partition("=") for part in selector.split(",") if part]
    return all(labels.get(name) == value if equals else name in labels for name, equals, value in wanted)


@contextmanager
def engine_of(
    api: ScriptedApi, directory: Path, intervals: EngineIntervals = EngineIntervals(), **settings: Any
) -> Iterator[KubernetesEngine]:
    """Yield an engine that talks to the scripted API server."""
    described = {
        "clusters": [{"name": "c", "cluster": {"server": api.url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}],
        "current-context": "c",
    }
    file = directory / f"kubeconfig-{api.port}"
    file.write_text(yaml.safe_dump(described))
    defaults = {"kubeconfig": str(file), "helper_image": "helper", **TIMEOUTS}
    engine = KubernetesEngine(ClusterSettings(**(defaults | settings)), intervals)
    try:
        yield engine
    finally:
        engine.close()


def in_thread(call: object, *arguments: object) -> tuple[threading.Thread, list[object]]:
    """Run a call in a thread, and return what came of it."""
    outcomes: list[object] = []

    def run() -> None:
        try:
            outcomes.append(call(*arguments))  # type: ignore[operator]
        except Exception as error:
            outcomes.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcomes
