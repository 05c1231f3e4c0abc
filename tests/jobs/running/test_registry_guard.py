"""The egress rules apply to pulls, and a registry's answers are not shown."""

import http.server
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_network

import pytest
from django.test import Client

from jobs.engine.docker import DockerEngine
from jobs.engine.docker.transport import is_engine_trouble_in_pull
from jobs.engine.image_errors import engine_text, explain
from jobs.engine.pullable_reference import parse_reference
from jobs.errors import ImageUnavailable
from jobs.interrupt import Interrupt
from jobs.running.registry_guard import check_registry
from jobs.states import Reason
from orchestrator_site.base.values.image_patterns import read_pattern
from tests.fake_engine import FakeEngine, FakeImage
from tests.helpers.api_calls import configured, expect_error, post_job
from tests.helpers.factories import make_job
from tests.helpers.workers import Workers, completed

NOTHING = {"egress_networks": (), "egress_hosts": frozenset[str]()}
SECRET = "s3cr3t-page"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Replace DNS by this table: name → addresses. Other names do not exist."""
    table: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, **options: int) -> list[object]:
        if host[0].isalpha() and host not in table:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [answer for address in table.get(host, [host]) for answer in real(address, port, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return table


# -- which registries may be reached ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "registry",
    [
        "127.0.0.1:5000",
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.0:80",
        "private.example",
        "mixed.example:5000",
        "both.example",
        "localhost:5000",
    ],
)
def test_a_registry_at_a_private_address_is_refused(names: dict[str, list[str]], registry: str) -> None:
    names |= {
        "localhost": ["127.0.0.1"],
        "private.example": ["192.168.1.1"],
        "mixed.example": ["93.184.216.34", "192.168.1.1"],
        "both.example": ["2606:4700::1", "::1"],
    }

    with configured(**NOTHING), pytest.raises(ImageUnavailable, match="EGRESS_ALLOW") as refused:
        check_registry(parse_reference(f"{registry}/team/x:1"), timeout=5)

    assert "192.168" not in str(refused.value)


@pytest.mark.parametrize("host", ["127.1", "2130706433.", "0x7f.0.0.1", "010.0.0.1", "1.2.3", "1.2.3.0x4", "1.2.3.256"])
def test_an_ambiguous_address_is_refused(host: str) -> None:
    host = host.rstrip(".")
    text = f"{host}:5000/x"

    # Even where every network is allowed
    with configured(egress_networks=(ip_network("0.0.0.0/0"),)), pytest.raises(ImageUnavailable, match="EGRESS_ALLOW"):
        check_registry(parse_reference(text), timeout=5)


@pytest.mark.parametrize(
    "registry", ["8.8.8.8", "registry.example:5000", "Registry.Example", "10.1.2.3:5000", "internal.example", "docker.io"]
)
def test_public_and_allowed_registries_are_accepted(names: dict[str, list[str]], registry: str) -> None:
    names |= {"registry.example": ["93.184.216.34"], "Registry.Example": ["93.184.216.34"], "internal.example": ["10.9.9.9"]}
    listed = {"egress_networks": (ip_network("10.1.0.0/16"),), "egress_hosts": frozenset({"internal.example"})}

    with configured(**listed):
        check_registry(parse_reference(f"{registry}/team/x:1"), timeout=5)


def test_docker_hub_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a worker without DNS
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("looked up"))

    # I expect all names of Docker Hub to be accepted
    with configured(**NOTHING):
        for name in ("alpine", "team/app", "docker.io/alpine", "index.docker.io/team/app"):
            check_registry(parse_reference(name), timeout=5)


def test_an_unresolvable_registry_looks_unreachable(names: dict[str, list[str]]) -> None:
    with configured(**NOTHING), pytest.raises(ImageUnavailable) as refused:
        check_registry(parse_reference("nowhere.example/x:1"), timeout=5)

    assert str(refused.value) == explain("connect: connection refused", "nowhere.example/x:1")


# -- a job -------------------------------------------------------------------------------------------------

REFERENCE = "127.0.0.1:5000/team/x:1"


@pytest.mark.django_db(transaction=True)
def test_an_image_of_a_forbidden_registry_is_not_pulled(engine: FakeEngine, workers: Workers) -> None:
    # Given an image at an address that is not allowed
    engine.registry[REFERENCE] = FakeImage()
    job = make_job(image=REFERENCE)

    # When it runs
    with configured(**NOTHING):
        workers.another().run_jobs()

    # I expect the reason, and no pull
    job = completed(job)
    assert (job.reason, engine.pulls_begun) == (Reason.IMAGE_PULL, 0)
    assert "EGRESS_ALLOW" in job.error


@pytest.mark.django_db(transaction=True)
def test_a_registry_is_checked_before_each_pull(engine: FakeEngine, workers: Workers) -> None:
    # Given an image that was pulled while its registry was allowed
    engine.registry[REFERENCE] = FakeImage()
    supervisor = workers.another()
    with configured(egress_networks=(ip_network("127.0.0.0/8"),)):
        first = make_job(image=REFERENCE)
        supervisor.run_jobs()
    assert completed(first).exit_code == 0

    # When it is not allowed any more
    with configured(**NOTHING):
        here, again = make_job(image=REFERENCE), make_job(image=REFERENCE, pull_policy="always")
        supervisor.run_jobs()

    # I expect the local image to run, and no second pull
    assert completed(here).exit_code == 0
    assert completed(again).reason == Reason.IMAGE_PULL
    assert engine.pulls == [REFERENCE]


@pytest.mark.django_db
def test_an_image_that_matches_no_pattern_is_refused(client: Client) -> None:
    with configured(images_allow=(read_pattern("python:3.*"), read_pattern("registry.example/team/*"))):
        assert post_job(client, image="docker.io/library/python:3.12").status_code == 202
        assert "IMAGES_ALLOW" in expect_error(post_job(client, image="python:2.7"), 400, "image")
        assert "IMAGES_ALLOW" in expect_error(post_job(client, image="registry.example/other/x"), 400, "image")


@pytest.mark.django_db(transaction=True)
def test_changed_patterns_apply_to_waiting_jobs(engine: FakeEngine, workers: Workers) -> None:
    job, allowed = make_job(image="alpine"), make_job(image="other")
    engine.registry["other:latest"] = FakeImage(command=("true",))

    workers.another(images_allow=(read_pattern("other"),)).run_jobs()

    job = completed(job)
    assert job.reason == Reason.IMAGE_PULL
    assert "IMAGES_ALLOW" in job.error
    assert completed(allowed).exit_code == 0


# -- messages of failed pulls ------------------------------------------------------------------------------

IMAGE = "registry.example/x:1"
MEANINGS = {
    "was not found": [
        f"manifest for {IMAGE} not found: manifest unknown: {SECRET}",
        f"repository {IMAGE} not found: name unknown: {SECRET}",
        f"pull access denied for x, repository does not exist or may require 'docker login': denied: {SECRET}",
        f'failed to resolve reference "{IMAGE}": {IMAGE}: not found',
        "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope",
    ],
    "credentials": [
        "unauthorized: authentication required",
        f"unauthorized: {SECRET}",
        "unauthorized: <html>no matching manifest, toomanyrequests</html>",
        f'Head "https://registry.example/v2/x/manifests/1?{SECRET}": no basic auth credentials',
        "unexpected status from HEAD request to https://registry.example/v2/x/manifests/1: 403 Forbidden",
        "failed to authorize: failed to fetch oauth token: unexpected status from GET request to https://x/t: 401 Unauthorized",
    ],
    "too many requests": [
        f"toomanyrequests: {SECRET}",
        "unexpected status from HEAD request to https://registry.example/v2/x/manifests/1: 429 Too Many Requests",
    ],
    "platform": [
        "no matching manifest for linux/arm64/v8 in the manifest list entries",
        "no match for platform in manifest: not found",
    ],
    "cannot be reached": [
        'Get "http://127.0.0.1:9/v2/": dial tcp 127.0.0.1:9: connect: connection refused',
        'Get "https://registry.example/v2/": context deadline exceeded',
        f"error parsing HTTP 404 response body: invalid character '<' looking for beginning of value: \"{SECRET}\"",
        "missing or empty Content-Type header",
        "received unexpected HTTP status: 500 Internal Server Error",
        f"unknown: {SECRET}",
        "unknown: <html>Forbidden: manifest unknown, toomanyrequests</html>",
        "error parsing HTTP 403 response body: invalid character '<' looking for beginning of value: \"<h1>403 Forbidden</h1>\"",
        'net/http: HTTP/1.x transport connection broken: malformed HTTP response "550 permission denied: unauthorized"',
        f'net/http: HTTP/1.x transport connection broken: malformed HTTP response "{SECRET}"',
        'failed to do request: Head "https://registry.example/v2/": dial tcp: lookup registry.example: no such host',
        "",
        "x" * 10_000_000,
    ],
}


@pytest.mark.stateless
@pytest.mark.parametrize(("meaning", "message"), [(meaning, message) for meaning, told in MEANINGS.items() for message in told])
def test_failed_pulls_have_fixed_messages(meaning: str, message: str) -> None:
    sentence = explain(message, IMAGE)

    assert meaning in sentence
    assert IMAGE in sentence
    assert SECRET not in sentence
    assert len({explain(other, IMAGE) for other in MEANINGS[meaning]}) == 1


FULL = "no space left on device"


@pytest.mark.stateless
@pytest.mark.parametrize(
    "message",
    [
        f"unknown: {FULL}",
        f'error parsing HTTP 404 response body: unexpected end of JSON input: "{FULL}"',
        f"received unexpected HTTP status: 503 {FULL}",
        f"unexpected status from HEAD request to https://registry.example/v2/: 503 {FULL}",
        f'tls: failed to verify certificate: x509: certificate is valid for "{FULL}"',
        'Get "https://elsewhere.example/containerd.sock": EOF',
        'Get "https://containerd.sock.example/": dial tcp: lookup containerd.sock.example on 127.0.0.1:53: no such host',
        'failed to resolve reference "containerd.sock.example/containerd.sock:containerd.sock": not found',
    ],
)
def test_a_registry_cannot_imitate_the_engines_errors(message: str) -> None:
    reference = parse_reference("containerd.sock.example/containerd.sock:containerd.sock")

    assert not is_engine_trouble_in_pull(engine_text(message, reference))


@pytest.mark.stateless
@pytest.mark.parametrize("image", ["a", "x", "registry.example/a/b@sha256:" + "0" * 64])
def test_engine_errors_are_recognized_for_any_image(image: str) -> None:
    message = f"failed to register layer: write /x: {FULL}"

    assert is_engine_trouble_in_pull(engine_text(message, parse_reference(image)))


Respond = Callable[[str], tuple[int, dict[str, str], bytes]]


@contextmanager
def web_server(respond: Respond) -> Iterator[str]:
    """Serve anything but a registry. `respond` returns status, headers and body for a path. Return the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = respond(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def page(status: int) -> Respond:
    return lambda _: (status, {"Content-Type": "text/html"}, f"<html>Forbidden: manifest unknown. {SECRET}</html>".encode())


def pull_error(engine: DockerEngine, address: str) -> str:
    with pytest.raises(ImageUnavailable) as failed:
        engine.ensure_image(f"{address}/x/y:1", "missing", 60, Interrupt())
    return str(failed.value).replace(address, "ADDRESS")


def closed_port() -> str:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.engine
@pytest.mark.stateless
@pytest.mark.parametrize("status", [200, 404, 500])
def test_a_page_and_a_closed_port_look_alike(docker_host: str, status: int, caplog: pytest.LogCaptureFixture) -> None:
    # Given a web server with a secret page, and a port on which nothing listens
    engine = DockerEngine(docker_host)
    with web_server(page(status)) as address:
        # When images are pulled from both
        caplog.set_level(logging.WARNING)
        open_port = pull_error(engine, address)

    # I expect the same message for both
    assert open_port == pull_error(engine, closed_port())
    assert SECRET not in open_port
    assert "could not pull" in caplog.text


@pytest.mark.engine
@pytest.mark.stateless
def test_a_registrys_own_message_is_not_shown(docker_host: str) -> None:
    def respond(path: str) -> tuple[int, dict[str, str], bytes]:
        error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": SECRET, "detail": SECRET}]}
        return (200, {}, b"{}") if path == "/v2/" else (404, {"Content-Type": "application/json"}, json.dumps(error).encode())

    with web_server(respond) as address:
        assert (
            pull_error(DockerEngine(docker_host), address)
            == "the image ADDRESS/x/y:1 was not found, or pulling it is not allowed"
        )
