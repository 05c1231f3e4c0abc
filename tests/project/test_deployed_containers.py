"""The image of deploy/Dockerfile, and the services of deploy/compose.yaml on the PostgreSQL and Redis of the tests."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
import requests
import yaml
from environment import random_key

from tests.helpers import built_images, service_image
from tests.helpers.compose import compose
from tests.helpers.service_processes import Service
from tests.helpers.waiting import wait_for

pytestmark = [
    pytest.mark.engine,
    pytest.mark.any_engine,
    pytest.mark.packages,
    pytest.mark.production,
    pytest.mark.timeout(900),
]

COMPOSE_FILE: Final = Path(__file__).resolve().parents[2] / "deploy" / "compose.yaml"
SECOND: Final = 10**9  # in the engine's unit
SOCKET: Final = "/var/run/docker.sock"
API_KEY: Final = "a key of the test"
ENVIRONMENT: Final = {
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "PUBLIC_URL": "https://orchestrator.example.com",
    "SECRET_KEY": random_key(),
    "ENCRYPTION_KEYS": random_key(),
}


@pytest.fixture(scope="module")
def host() -> str:
    return os.environ["DOCKER_HOST"]


@pytest.fixture(scope="module")
def image(host: str) -> Iterator[str]:
    with service_image.built(host) as image:
        yield image


@contextmanager
def running(host: str, image: str) -> Iterator[Any]:
    """Run the image as deploy/compose.yaml does, without a network. Its health is checked each second."""
    with closing(built_images.client(host)) as engine:
        container = engine.containers.run(
            image,
            detach=True,
            network_mode="none",
            environment=ENVIRONMENT,
            read_only=True,
            tmpfs={"/tmp": ""},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            healthcheck={"interval": SECOND},
        )
        try:
            yield container
        finally:
            container.remove(force=True, v=True)


def test_the_image_serves_without_privileges_and_its_health_check_sees_it(host: str, image: str) -> None:
    # When it runs on a read-only file system without any capability
    with running(host, image) as container:

        def health() -> str:
            container.reload()
            assert container.status == "running", container.logs().decode()
            return str(container.attrs["State"]["Health"]["Status"])

        # I expect it to become healthy, as a user without privileges who may not change it
        wait_for(lambda: health() == "healthy", 120, "the health check")
        code, user = container.exec_run(["python", "-c", "import os; print(os.getuid(), os.access('/opt', os.W_OK))"])
        assert (code, user.decode().split()) == (0, [str(service_image.USER), "False"])

        # And to stop within the usual time
        container.stop(timeout=20)
        assert container.wait()["StatusCode"] == 0


def test_the_image_contains_the_service_and_nothing_else(host: str, image: str) -> None:
    # When its files and its configuration are listed
    with closing(built_images.client(host)) as engine:
        listed = engine.containers.run(image, ["ls", "-A", "/opt/orchestrator", "/opt/venv/bin"], remove=True).decode()
        described = engine.images.get(image)
        configuration = json.dumps([described.attrs["Config"], described.history()])

    # I expect no tests, tools or state, no installer, and nothing of how it was built
    assert {"manage.py", "jobs", "callbacks", "orchestrator_site"} == set(listed.split("\n\n")[0].split("\n")[1:])
    assert "pip" not in listed
    assert "PIP_FIND_LINKS=" not in configuration
    assert described.attrs["Config"]["User"] == f"{service_image.USER}:{service_image.USER}"


def services_on(service: Service, host: str) -> dict[str, Any]:
    """Return deploy/compose.yaml with the databases of an installation, the test's engine, and the network of its host."""
    file: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())
    databases = ("postgres", "redis")
    for name in databases:
        del file["services"][name]
    names = ("DATABASE_URL", "REDIS_URL", "HOST", "PORT", "METRICS_PORT", "PUBLIC_URL", "SECRET_KEY", "ENCRYPTION_KEYS")
    for described in file["services"].values():
        described.pop("ports", None)
        described["network_mode"] = "host"
        described["depends_on"] = {name: how for name, how in described["depends_on"].items() if name not in databases}
        described["environment"] = described["environment"] | {name: service.environment[name] for name in names}
        described["volumes"] = [
            volume.replace(f"{SOCKET}:", f"{host.removeprefix('unix://')}:") for volume in described["volumes"]
        ]
    return {name: part for name, part in file.items() if not name.startswith("x-")}


@contextmanager
def up(service: Service, host: str, image: str, directory: Path) -> Iterator[Any]:
    """Start all services as docs/deployment.md says, and yield a function that runs Compose. Remove them at the end."""
    secrets = directory / "secrets"
    secrets.mkdir(mode=0o750)
    (secrets / "api-keys").write_text(f"{API_KEY}\n")
    (secrets / "api-keys").chmod(0o640)
    for path in (secrets, secrets / "api-keys"):
        os.chown(path, -1, service_image.USER)
    file = directory / "compose.yaml"
    file.write_text(yaml.safe_dump(services_on(service, host)))
    variables = {
        "COMPOSE_PROJECT_NAME": f"orchestrator-test-{os.getpid()}",
        "DOCKER_HOST": host,
        "ORCHESTRATOR_IMAGE": image,
        "DOCKER_GROUP": str(os.stat(host.removeprefix("unix://")).st_gid),
        "POSTGRES_PASSWORD": "unused",
    } | {name: ENVIRONMENT[name] for name in ("PUBLIC_URL", "SECRET_KEY", "ENCRYPTION_KEYS")}

    def run(*arguments: str) -> str:
        done = compose(file, *arguments, variables=variables, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        run("up", "--detach")
        yield run
    except BaseException:
        print(run("logs", "--no-color"))
        raise
    finally:
        run("down", "--volumes", "--timeout", "20")


def is_ready(service: Service) -> bool:
    with suppress(requests.ConnectionError):
        return service.request("GET", "/readyz").ok
    return False


def counted(service: Service) -> dict[str, float]:
    """Return the counters and gauges that `metrics` shows, by series."""
    port = service.environment["METRICS_PORT"]
    text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=20).text
    return {series: float(value) for series, value in re.findall(r"^([^#\s].*) (\S+)$", text, re.MULTILINE)}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as the Docker socket and the group of the file of keys do")
def test_compose_runs_jobs_and_one_container_has_the_metrics_of_all(
    service: Service, host: str, image: str, tmp_path: Path
) -> None:
    key = {"Authorization": f"Bearer {API_KEY}"}
    if not host.startswith("unix://"):
        pytest.skip("the engine has no socket on this machine")
    with up(service, host, image, tmp_path) as run:
        # When a job is posted
        wait_for(lambda: is_ready(service), 120, "the services")
        posted = service.request("POST", "/v1/jobs", json={"image": "alpine:latest", "command": "echo ran"}, headers=key)
        assert posted.status_code == 202, posted.text
        path = f"/v1/jobs/{posted.json()['id']}"

        # I expect it to run, without a call for which a key was not needed
        job = wait_for(
            lambda: (answer := service.request("GET", path, headers=key).json()).get("completedAt") and answer, 60, "the job"
        )
        assert job["status"] == "completed", job
        assert service.request("GET", f"{path}/logs", headers=key).text == "ran\n"
        assert service.request("GET", path).status_code == 401

        # And the counts of all containers in one
        of_web, of_the_worker = (
            'jobs_total{image="alpine:latest"}',
            'job_duration_seconds_count{image="alpine:latest",success="true"}',
        )
        assert {name: counted(service).get(name) for name in (of_web, of_the_worker, "database_up")} == {
            of_web: 1,
            of_the_worker: 1,
            "database_up": 1,
        }

        # Also after they were killed and replaced
        run("kill", "web", "worker")
        run("up", "--detach", "--force-recreate", "web", "worker")
        assert {name: counted(service).get(name) for name in (of_web, of_the_worker)} == {of_web: 1, of_the_worker: 1}
