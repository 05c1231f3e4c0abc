"""Secrets are planted everywhere a client may put one, and then looked for everywhere they must not be."""

import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from uuid import uuid4

import docker
import psycopg
import pytest
import redis
import requests
from psycopg import sql

from tests.helpers import built_images
from tests.helpers.fileserver import FileServer
from tests.helpers.receiver import Receiver
from tests.helpers.service_processes import Service
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.production, pytest.mark.timeout(240)]

CANARY = "canary-7f3a"
JOB_PAGE = ("state/", "log/", "log.txt", "events/", "run_again/")  # what the page of a job loads


def canary(name: str) -> str:
    return f"{CANARY}-{name}"


def job_with_secrets(files: FileServer, receiver: Receiver, *, missing: bool) -> dict[str, Any]:
    """A job with a secret in each member that may hold one. `missing`: its download and uploads fail, and tell why."""
    source = files.url("/nowhere") if missing else files.serve("/in", b"content")
    host = source.removeprefix("http://")
    headers = {"Authorization": f"Bearer {canary('header')}"}
    return {
        "image": "alpine:latest",
        "command": "echo ran > out; exit 3",
        "environment": {"TOKEN": canary("environment")},
        "inputs": [
            {
                "type": "download",
                "path": "in",
                "url": f"http://user:{canary('password')}@{host}?key={canary('query')}",
                "headers": headers,
            },
            {"type": "file", "path": "file", "content": canary("content")},
        ],
        "outputs": [
            {"type": "upload", "path": "out", "url": f"{files.url('/out')}?sig={canary('upload-query')}", "headers": headers},
            {"type": "upload", "path": "none", "url": f"{files.url('/none')}?sig={canary('upload-query')}", "headers": headers},
        ],
        "callback": {
            "url": f"{receiver.url}/hook?token={canary('callback-query')}",
            "key": [canary("key"), canary("previous-key")],
            "headers": {"Authorization": f"Bearer {canary('callback-header')}"},
        },
    }


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
        yield commands
        with closing(redis.Redis.from_url(url)) as other:
            other.echo("end of listening")
        thread.join(30)


def every_row(service: Service) -> str:
    """Return all rows of all tables as text."""
    with psycopg.connect(service.database_url) as connection:
        tables = connection.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'").fetchall()
        rows = [
            connection.execute(
                sql.SQL("SELECT t::text, encode(t::text::bytea, 'escape') FROM {} t").format(sql.Identifier(name))
            ).fetchall()
            for (name,) in tables
        ]
        bodies = connection.execute("SELECT convert_from(body, 'UTF8') FROM callbacks_event").fetchall()
    return str(rows) + str(bodies)


def containers_seen(host: str) -> str:
    """Return names, labels and arguments of all containers, but not their environment, which may have secrets."""
    with closing(built_images.client(host)) as engine:
        found = []
        for container in engine.containers.list(all=True, ignore_removed=True):
            try:
                container.reload()
            except docker.errors.NotFound:
                continue
            found.append([container.name, container.labels, container.attrs["Args"], container.attrs["HostConfig"]])
        return json.dumps(found)


def log_in(service: Service, password: str) -> requests.Response:
    service.request("GET", "/admin/login/")
    form = {"username": "operator", "password": password, "csrfmiddlewaretoken": service.cookie("csrftoken"), "next": "/admin/"}
    return service.request("POST", "/admin/login/", data=form, headers={"Referer": service.url})


def refused_requests(service: Service) -> Iterator[requests.Response]:
    """Send requests with secrets where none belong."""
    key = {"Authorization": f"Bearer {canary('api-key')}"}
    for path in (f"/v1/jobs?cursor={canary('cursor')}", f"/{canary('path')}", f"/v1/jobs?{canary('parameter')}=1"):
        yield service.request("GET", path, headers=key)
    for body in (
        f'{{"image": "alpine", "environment": {{"TOKEN": "{canary("broken-json")}"',
        json.dumps({"image": "alpine", "environment": {"TOKEN": [canary("list")]}}),
        json.dumps(
            {"image": "alpine", "callback": {"url": f"ftp://user:{canary('callback-password')}@host", "key": canary("key")}}
        ),
    ):
        yield service.request("POST", "/v1/jobs", data=body, headers={"Content-Type": "application/json"})


def start_without_databases(service: Service) -> str:
    """Start a process whose databases do not answer, and return its log."""
    unreachable = f"://user:{canary('database-password')}@127.0.0.1:1"
    service.start("relay", "cut-off", DATABASE_URL=f"postgresql{unreachable}/none", REDIS_URL=f"redis{unreachable}/0")
    wait_for(lambda: "warning" in service.log("cut-off"), 60, "a line about the databases")
    service.kill("cut-off")
    return service.log("cut-off")


def admin_pages(service: Service) -> str:
    """Return the start page, all lists and the pages of objects in the admin."""
    environment = service.environment | {"DJANGO_SUPERUSER_PASSWORD": "a password of the test"}
    service.manage("createsuperuser", "--noinput", "--username", "operator", "--email", "o@example.com", env=environment)
    assert log_in(service, canary("admin-password")).url.endswith("/admin/login/")
    assert log_in(service, "a password of the test").url.endswith("/admin/")
    run_again(service)
    start_page = service.request("GET", "/admin/").text
    assert "Needs attention" in start_page
    pages = [start_page]
    for model, key in (("jobs/job", "uuid"), ("jobs/node", "id"), ("callbacks/subscription", "id"), ("callbacks/event", "id")):
        listing = service.request("GET", f"/admin/{model}/")
        assert listing.status_code == 200, model
        pages.append(listing.text)
        for (identity,) in service.query(f"SELECT {key} FROM {model.replace('/', '_')}"):
            parts = ("change/", *(JOB_PAGE if model == "jobs/job" else ()))
            for part in parts:
                page = service.request("GET", f"/admin/{model}/{identity}/{part}")
                assert page.status_code == 200, (model, part, page.text[:500])
                pages.append(page.text)
    return "\n".join(pages)


def run_again(service: Service) -> None:
    """Run the first job again on its page, with its secrets."""
    [(uuid,)] = service.query("SELECT uuid FROM jobs_job ORDER BY uuid LIMIT 1")
    again = str(uuid4())
    form = {"_form_submitted": "True", "new_id": again, "csrfmiddlewaretoken": service.cookie("csrftoken")}
    answer = service.request("POST", f"/admin/jobs/job/{uuid}/run_again/", data=form, headers={"Referer": service.url})
    assert "HX-Redirect" in answer.headers, answer.text[:500]
    service.wait_complete(again)


def scraped(service: Service) -> str:
    answer = requests.get(f"http://127.0.0.1:{service.environment['METRICS_PORT']}/metrics", timeout=20)
    assert answer.ok
    return answer.text


def test_secrets_are_visible_nowhere(service: Service) -> None:
    with FileServer() as files, Receiver() as receiver, all_redis_commands(service.redis_url) as commands:
        # Given jobs with secrets everywhere, one that succeeds and one that fails
        service.start_all()
        service.start("metrics")
        jobs = [service.post_job(**job_with_secrets(files, receiver, missing=missing)) for missing in (False, True)]
        containers = [containers_seen(os.environ["DOCKER_HOST"])]
        for job_id in jobs:
            service.wait_complete(job_id)
            containers.append(containers_seen(os.environ["DOCKER_HOST"]))

        def all_received() -> bool:
            return all(
                any(event["subject"] == job_id and event["type"].endswith("complete") for event in receiver.events)
                for job_id in jobs
            )

        wait_for(all_received, 60, "all events")
        # (the servers have received theirs)
        assert any(canary("header") in str(request.headers) for request in files.requests)
        assert all(canary("callback-query") in request.path for request in receiver.requests)
        assert all(canary("callback-header") in request.headers["authorization"] for request in receiver.requests)

        # And requests with secrets where none belong
        refused = [*refused_requests(service)]
        assert all(answer.status_code >= 400 for answer in refused)

        # When every place is searched that must not have them
        places = {
            "answers": "".join(
                service.request("GET", path).text
                for job_id in jobs
                for path in ("/v1/jobs", f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/logs", "/readyz")
            ),
            "events": json.dumps(receiver.events),
            "containers": "".join(containers),
            # An answer names an unknown parameter to the client that sent it.
            "refusals": "".join(answer.text for answer in refused).replace(canary("parameter"), ""),
            "admin": admin_pages(service),
            "rows": every_row(service),
            "metrics": scraped(service),
            "log without databases": start_without_databases(service),
        }
        places["logs"] = "".join(service.log(name) for name in service.processes)
    places["messages"] = "".join(commands)
    assert commands
    assert jobs[0] in places["rows"]

    # I expect no secret in any of them
    keys = [service.environment[name] for name in ("SECRET_KEY", "ENCRYPTION_KEYS")]
    found = {place: [part for secret in (CANARY, *keys) for part in where(secret, text)] for place, text in places.items()}
    assert {place: parts for place, parts in found.items() if parts} == {}


def where(secret: str, text: str) -> list[str]:
    return [text[max(0, at.start() - 80) : at.end() + 40] for at in re.finditer(re.escape(secret), text)][:5]
