"""Canaries are planted wherever the service gets a secret, and looked for everywhere else, in production, with all logs."""

import json
import os
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin
from uuid import uuid4

import docker
import pytest
import redis
import requests
from environment import free_port

from tests.helpers import built_images
from tests.helpers.canaries import CANARY, canary, canary_of, found_in, job_with_canaries, secrets_of_settings
from tests.helpers.connect_proxy import ConnectProxy
from tests.helpers.fileserver import Exchange, FileServer, redirect
from tests.helpers.receiver import Answer, Received, Receiver
from tests.helpers.service_processes import Service
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.production, pytest.mark.timeout(300)]

DENIED: Final = "http://10.255.255.1"
MOST_ALIKE: Final = 3  # pages of the admin that differ only in what they are about ...
MOST_OBJECTS: Final = 15  # ... unless they say what happened to one thing

# Python reads this module at the start of every process: all loggers get the level DEBUG, whatever the service says.
LOG_EVERYTHING: Final = """
import logging.config

configure = logging.config.dictConfig

def dictConfig(settings):
    configure(settings)
    for name in [None, *logging.root.manager.loggerDict]:
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG)
        logger.filters.clear()

logging.config.dictConfig = dictConfig
"""


def jobs_with_canaries(files: FileServer, receiver: Receiver) -> list[dict[str, Any]]:
    """Return jobs with a canary in each secret member: the first one succeeds, the others end with all kinds of errors."""

    source, target = files.serve("/in", b"content"), files.url("/out")

    def job(download: str = source, upload: str = target, callback: str = receiver.url, **members: Any) -> dict[str, Any]:
        return job_with_canaries(download=download, upload=upload, callback=f"{callback}/hook", **members)

    for path in ("/refused", "/refusing"):
        files.fault(path, answer_with_the_request)
    files.fault("/moved", redirect(f"{DENIED}/in?key={canary('location')}"))
    wrong_sum = job()
    wrong_sum["inputs"][0]["sha256"] = "0" * 64
    return [
        job(),
        job(files.url("/nowhere")),
        job(files.url("/refusing")),
        job(files.url("/moved")),
        job(f"{DENIED}/in"),
        job(upload=files.url("/refused")),
        job(upload=f"{DENIED}/out"),
        job(callback=DENIED),
        job(callback=f"http://127.0.0.1:{free_port()}"),
        job(image="127.0.0.1:9/none:1"),
        job(workspace="/etc/passwd"),
        job(command="sleep 600", timeoutSeconds=1),
        wrong_sum,
    ]


def answer_with_the_request(exchange: Exchange) -> None:
    """Answer 403 with everything that was asked."""
    request = exchange.read_body() if exchange.command != "GET" else exchange.record()
    exchange.answer(403, body=f"{request.target} {dict(request.headers)}".encode())


def echo(received: Received) -> Answer:
    """Answer with everything that was sent, and take no event about an input."""
    status = 410 if received.json["type"].endswith("input") else 200
    return Answer(status, body=f"{received.target} {received.headers}".encode())


@contextmanager
def all_redis_commands(url: str) -> Iterator[list[str]]:
    """Record all commands that Redis receives."""
    commands: list[str] = []
    # While the processes start, Redis may receive nothing for longer than the client's default time-out of 5 s.
    with closing(redis.Redis.from_url(url, socket_timeout=60)) as client, client.monitor() as monitor:

        def listen() -> None:
            for command in monitor.listen():
                commands.append(str(command["command"]))
                if "end of listening" in commands[-1]:
                    return

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield commands
        finally:
            with closing(redis.Redis.from_url(url)) as other:
                other.echo("end of listening")
            thread.join(30)


def everything_in_redis(url: str) -> str:
    with closing(redis.Redis.from_url(url)) as client:
        return str([(key, client.dump(key)) for key in client.scan_iter()])


def dump(service: Service) -> str:
    """Return the whole database as a backup has it."""
    made = subprocess.run(["pg_dump", service.database_url], check=True, capture_output=True, text=True, timeout=60)
    return made.stdout


def inspected(host: str) -> tuple[str, str]:
    """Return what the engine says about all that it has, and separately the environment of its containers, which has secrets."""
    with closing(built_images.client(host)) as engine:
        found: list[Any] = [engine.networks.list(), engine.volumes.list(), engine.images.list()]
        described = [item.attrs for items in found for item in items]
        environment = []
        for container in engine.containers.list(all=True, ignore_removed=True):
            try:
                container.reload()
            except docker.errors.NotFound:
                continue
            environment.append(container.attrs["Config"].pop("Env"))
            described.append(container.attrs)
        return json.dumps(described), json.dumps(environment)


def command_lines() -> str:
    """Return the arguments of all processes of this machine."""
    return "\n".join(read_if_there(path) for path in Path("/proc").glob("[0-9]*/cmdline"))


def files_of(service: Service) -> str:
    """Return what the service has on disk, except its logs."""
    paths = [path for path in (service.directory / "var").rglob("*") if path.is_file()]
    return "\n".join(f"{path}: {read_if_there(path)}" for path in paths)


def read_if_there(path: Path) -> str:
    try:
        return path.read_bytes().decode("latin-1")
    except OSError:
        return ""


def answers(service: Service, jobs: list[str]) -> str:
    """Return the answers of all addresses of the API, as its document lists them, in all forms."""
    (destinations,) = [service.query("SELECT id FROM callbacks_destination")]
    values = {"job_id": jobs, "destination_id": [identity for (identity,) in destinations]}
    texts = []
    for path, methods in service.request("GET", "/v1/openapi.json").json()["paths"].items():
        names = re.findall(r"{(\w+)}", path)
        if "get" in methods:
            for value in values[names[0]] if names else [None]:
                for form in ("application/json", "text/plain", "text/event-stream"):
                    answer = service.request("GET", re.sub(r"{\w+}", str(value), path), headers={"Accept": form})
                    assert answer.status_code in (200, 406), (path, answer.text)
                    texts.append(answer.text + str(answer.headers))
    assert len(texts) > 10 * len(jobs)
    return "\n".join(texts)


def refused_requests(service: Service) -> Iterator[requests.Response]:
    """Send requests with secrets where none belong."""
    for path in (f"/v1/jobs?cursor={canary('cursor')}", f"/{canary('path')}", f"/v1/jobs?{canary('parameter')}=1"):
        yield service.request("GET", path)
    yield service.request("GET", "/v1/jobs", headers={"Authorization": f"Bearer {canary('wrong-key')}"})
    for body in (
        f'{{"image": "alpine", "environment": {{"TOKEN": "{canary("broken-json")}"',
        json.dumps({"image": "alpine", "environment": {"TOKEN": [canary("list")]}}),
        json.dumps({"image": "alpine", "inputs": [{"type": "file", "path": "a", "content": canary("c"), "encoding": "base64"}]}),
        json.dumps(
            {"image": "alpine", "callback": {"url": f"ftp://user:{canary('callback-password')}@host", "key": canary("key")}}
        ),
    ):
        yield service.request("POST", "/v1/jobs", data=body, headers={"Content-Type": "application/json"})


def start_without_databases(service: Service) -> None:
    """Start a process whose databases do not answer."""
    unreachable = f"://user:{canary('database-password')}@127.0.0.1:1"
    service.start("relay", "cut-off", DATABASE_URL=f"postgresql{unreachable}/none", REDIS_URL=f"redis{unreachable}/0")


def log_in(service: Service, password: str) -> requests.Response:
    service.request("GET", "/admin/login/")
    form = {"username": "operator", "password": password, "csrfmiddlewaretoken": service.cookie("csrftoken"), "next": "/admin/"}
    return service.request("POST", "/admin/login/", data=form, headers={"Referer": service.url})


def make_key(service: Service) -> str:
    """Make an API key in the admin, and return its secret part."""
    form = {"name": "canary", "expires_at_0": "", "expires_at_1": "", "csrfmiddlewaretoken": service.cookie("csrftoken")}
    answer = service.request("POST", "/admin/access/apikey/add/", data=form, headers={"Referer": service.url})
    (key,) = re.findall(r'value="(orch_[^"]+)"', answer.text)
    assert service.request("GET", "/v1/jobs", headers={"Authorization": f"Bearer {key}"}).ok
    return str(key).split("_", 2)[2]


def run_again(service: Service, job_id: str) -> str:
    """Run a job again on its page, with its secrets."""
    [(uuid,)] = service.query("SELECT uuid FROM jobs_job WHERE id = %s", job_id)
    again = str(uuid4())
    form = {"_form_submitted": "True", "new_id": again, "csrfmiddlewaretoken": service.cookie("csrftoken")}
    answer = service.request("POST", f"/admin/jobs/job/{uuid}/run_again/", data=form, headers={"Referer": service.url})
    assert "HX-Redirect" in answer.headers, answer.text[:500]
    service.wait_complete(again)
    return again


def admin_pages(service: Service) -> str:
    """Return the pages of the admin that its pages lead to, as a superuser sees them."""
    pages: dict[str, str] = {}
    alike: Counter[str] = Counter()
    waiting = ["/admin/"]
    while waiting:
        path = waiting.pop(0)
        kind = re.sub(r"[0-9a-f-]{36}|\d+", "*", path)
        most = MOST_OBJECTS if path.endswith("/change/") else MOST_ALIKE
        if path in pages or path == "/admin/logout/" or alike[kind] == most:
            continue
        alike[kind] += 1
        answer = service.request("GET", path)
        assert answer.status_code in (200, 405), (path, answer.text[:500])
        pages[path] = answer.text + str(answer.headers)
        links = re.findall(r"""=["']((?:/admin|\.\.)/[^"'?#]*)""", answer.text)
        waiting += [urljoin(path, link) for link in links]
    assert {"/admin/jobs/job/*/change/", "/admin/jobs/job/*/log.txt", "/admin/callbacks/event/*/change/"} <= alike.keys()
    assert "Needs attention" in pages["/admin/"]
    return "\n".join(pages.values())


def scraped(service: Service) -> str:
    answer = requests.get(f"http://127.0.0.1:{service.environment['METRICS_PORT']}/metrics", timeout=20)
    assert answer.ok
    return answer.text


@pytest.fixture
def service_with_canaries(service: Service, tmp_path: Path) -> Iterator[Service]:
    """An installation with canaries in the settings, too, whose processes log everything."""
    operators = tmp_path / "of the operator"
    operators.mkdir()
    (operators / "sitecustomize.py").write_text(LOG_EVERYTHING)
    (operators / "keys").write_text(canary("api-key"))
    service.environment |= {
        "STATE_DIR": str(tmp_path / "var"),
        "PYTHONPATH": str(operators),
        "API_AUTH": "required",
        "API_KEY_FILE": str(operators / "keys"),
        "DJANGO_SUPERUSER_PASSWORD": canary("admin-password"),
    }
    service.use_api_key(canary("api-key"))
    with ConnectProxy() as proxy:
        service.environment["EGRESS_PROXY"] = f"http://user:{canary('proxy-password')}@127.0.0.1:{proxy.port}"
        yield service
        assert all("Proxy-Authorization" in head for head in proxy.heads)
        assert proxy.heads


def test_secrets_are_visible_nowhere(service_with_canaries: Service) -> None:
    service = service_with_canaries
    engine = os.environ["DOCKER_HOST"]
    with FileServer() as files, Receiver() as receiver, all_redis_commands(service.redis_url) as commands:
        receiver.respond = echo
        # Given jobs with secrets everywhere: one that runs, and others that end in different ways
        service.start_all()
        service.start("metrics")
        start_without_databases(service)
        first, *others = jobs_with_canaries(files, receiver)
        running = service.post_job(**first | {"command": "sleep 600"})
        jobs = [service.post_job(**job) for job in (first, *others)]
        service.wait_status(running, "running")
        described, environment = inspected(engine)
        shown_by_processes = command_lines()
        assert service.request("DELETE", f"/v1/jobs/{running}").status_code == 204
        ended = [service.wait_complete(job_id) for job_id in (running, *jobs)]
        reasons = {"exit_code", "input_failed", "image_pull", "start_failed", "timeout", "cancelled"}
        assert {job["reason"] for job in ended} == reasons

        # And an operator who looks at them, and runs one again
        service.manage("createsuperuser", "--noinput", "--username", "operator", "--email", "o@e.org", env=service.environment)
        assert log_in(service, canary("wrong-password")).url.endswith("/admin/login/")
        assert log_in(service, canary("admin-password")).url.endswith("/admin/")
        jobs += [running, run_again(service, jobs[0])]
        made_key = make_key(service)

        # And all events to be delivered or tried
        def tried(job_id: str) -> bool:
            events = service.request("GET", f"/v1/jobs/{job_id}/events").json()["events"]
            return bool(events) and (events[-1]["state"] == "delivered" or bool(events[0]["attempts"]))

        wait_for(lambda: all(tried(job_id) for job_id in jobs), 60, "the events to be delivered, or tried")
        # (those who need the secrets have got them)
        assert canary_of("environment") in environment
        assert any(canary_of("inputs[].headers") in str(request.headers) for request in files.requests)
        assert all(canary_of("callback.url") in request.path for request in receiver.requests)
        assert all(canary_of("callback.headers") in request.headers["authorization"] for request in receiver.requests)

        # And requests with secrets where none belong
        refused = [*refused_requests(service)]
        assert all(answer.status_code >= 400 for answer in refused)
        wait_for(lambda: '"warning"' in service.log("cut-off"), 60, "a line about databases that do not answer")

        # When every place is searched that must not have them
        places = {
            "answers": answers(service, jobs),
            "events": json.dumps(receiver.events),
            "engine": described + inspected(engine)[0],
            "command lines": shown_by_processes,
            "refusals": "".join(answer.text for answer in refused),
            "admin": admin_pages(service),
            "metrics": scraped(service),
            "database": dump(service),
            "Redis": everything_in_redis(service.redis_url),
            "files": files_of(service),
        }
        places |= {f"log of {name}": service.log(name) for name in service.processes}
        session = service.cookie("sessionid")
    places["messages"] = "".join(commands)

    # I expect no secret in any of them, and each to be what it says
    places["refusals"] = places["refusals"].replace(canary("parameter"), "")  # which an answer names to the client that sent it
    places["log of web"] = places["log of web"].replace(f"/{canary('path')}", "")  # Django logs unknown paths, at this level
    secrets = [CANARY, session, made_key, *secrets_of_settings(service.environment)]
    found = {place: found_in(text, secrets) for place, text in places.items()}
    assert {place: parts for place, parts in found.items() if parts} == {}
    assert all(jobs[0] in places[place] for place in ("answers", "events", "admin", "database", "log of worker"))
    assert all('"debug"' in places[f"log of {name}"] for name in ("web", "worker", "deliver"))
    assert commands
