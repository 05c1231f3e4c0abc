"""The files in deploy/ fit the service, as far as it can be found out without an image registry and without systemd as init.

Each test is skipped if its tool is missing. bin/test installs `docker-compose`; `systemd-analyze` is part of systemd.
"""

import configparser
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from honcho.environ import parse_procfile

from tests.helpers.compose import compose
from tests.site.client.peers import Peer, Reply, serving

pytestmark = pytest.mark.stateless

ROOT: Final = Path(__file__).resolve().parents[2]
DEPLOY: Final = ROOT / "deploy"
UNITS: Final = DEPLOY / "systemd"
PROCFILE: Final[dict[str, str]] = parse_procfile((ROOT / "Procfile").read_text()).processes
VARIABLES: Final = {
    "POSTGRES_PASSWORD": "password",
    "PUBLIC_URL": "https://orchestrator.example.com",
    "SECRET_KEY": "key",
    "ENCRYPTION_KEYS": "keys",
    "DOCKER_GROUP": "999",
}
INSTALLED: Final = "/opt/orchestrator"
MAX_EXPOSURE: Final = 25  # tenths: systemd-analyze calls a service of up to 4.4 well protected

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def read_by_compose(variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return compose(DEPLOY / "compose.yaml", "config", variables=variables)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services of the Compose file, as Compose reads them."""
    read = read_by_compose(VARIABLES)
    assert read.returncode == 0, read.stderr
    found: dict[str, Any] = yaml.safe_load(read.stdout)["services"]
    return found


def command_of_the_image() -> str:
    (command,) = re.findall(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    return " ".join(json.loads(command))


def test_compose_runs_every_process_of_the_procfile(services: dict[str, Any]) -> None:
    commands = {name: " ".join(service.get("command") or []) or command_of_the_image() for name, service in services.items()}
    assert {name: commands.get(name) for name in PROCFILE} == PROCFILE
    assert set(services) - set(PROCFILE) == {"postgres", "redis"}


def test_no_process_of_compose_may_more_than_it_must(services: dict[str, Any]) -> None:
    for name in PROCFILE:
        service = services[name]
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "/var/lib/orchestrator" in json.dumps(service["volumes"]), name
        assert ("/var/run/docker.sock" in json.dumps(service.get("volumes", []))) == (name == "worker"), name


def test_only_web_has_the_health_check_of_the_image(services: dict[str, Any]) -> None:
    has_check = {name for name in PROCFILE if "healthcheck" not in services[name]}
    assert has_check == {"web"}


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_asks_the_service_and_no_proxy(status: int, code: int) -> None:
    # Given a service, and a proxy of the machine, which Docker passes on to containers
    (check,) = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text().replace("\\\n", ""), re.MULTILINE)
    peer = Peer()
    with serving(peer):
        peer.replies.append(Reply(status))
        environment = os.environ | {"http_proxy": "http://127.0.0.1:1", "no_proxy": "", "PORT": peer.url.rpartition(":")[2]}

        # When the health check of the image runs
        done = subprocess.run(
            [sys.executable, *json.loads(check)[1:]], env=environment, capture_output=True, timeout=60, check=False
        )

    # I expect it to find out how the service is
    assert (done.returncode, [path for _, path, _, _ in peer.requests]) == (code, ["/livez"])


@pytest.mark.parametrize("missing", VARIABLES)
def test_compose_names_a_required_variable_that_is_missing(missing: str) -> None:
    # When Compose reads the file without it
    read = read_by_compose({name: value for name, value in VARIABLES.items() if name != missing})

    # I expect an error that says where it belongs
    assert read.returncode != 0
    assert "set it in deploy/.env" in read.stderr


def commands_for_compose() -> str:
    """Return the commands of docs/deployment.md that install the service with Compose."""
    blocks: list[str] = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs" / "deployment.md").read_text(), re.DOTALL | re.MULTILINE)
    (found,) = (block for block in blocks if "deploy/.env" in block)
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as the commands do")
def test_the_guides_commands_give_compose_what_it_needs_and_others_nothing(tmp_path: Path) -> None:
    # Given the files of deploy/, and a `docker` that only records how it is called
    shutil.copytree(DEPLOY, tmp_path / "deploy", ignore=shutil.ignore_patterns(".env", "secrets"))
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "$@" >> calls\n')
    docker.chmod(0o755)

    # When the commands of the guide are copied, on a machine whose engine has its socket elsewhere
    subprocess.run(
        ["bash", "-ec", commands_for_compose().replace("/var/run/docker.sock", "/dev/null")],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        umask=0o022,
        timeout=60,
        check=True,
    )

    # I expect files that only the service and root can read
    keys, environment = tmp_path / "deploy" / "secrets" / "api-keys", tmp_path / "deploy" / ".env"
    assert (stat.S_IMODE(environment.stat().st_mode), stat.S_IMODE(keys.stat().st_mode)) == (0o600, 0o640)
    assert (keys.stat().st_gid, stat.S_IMODE(keys.parent.stat().st_mode)) == (10001, 0o750)
    assert len(keys.read_text().strip()) > 32

    # And Compose to accept them, with a key that the service can use
    assert (tmp_path / "calls").read_text().startswith("compose --file deploy/compose.yaml build\n")
    read = compose(tmp_path / "deploy" / "compose.yaml", "config", variables={})
    assert read.returncode == 0, read.stderr
    assert len(urlsafe_b64decode(yaml.safe_load(read.stdout)["services"]["worker"]["environment"]["ENCRYPTION_KEYS"])) == 32


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string((UNITS / name).read_text())
    return parser


def test_there_is_a_unit_for_each_process_of_the_procfile() -> None:
    commands = {
        path.stem.removeprefix("orchestrator-"): unit(path.name)["Service"]["ExecStart"] for path in UNITS.glob("*.service")
    }
    assert commands == {name: f"{INSTALLED}/.venv/bin/{command}" for name, command in PROCFILE.items()}


def installed_here(directory: Path) -> list[Path]:
    """Copy the units, as if the service was installed where it is."""
    shutil.copytree(UNITS, directory)
    for path in directory.rglob("*"):
        if path.is_file():
            path.write_text(path.read_text().replace(INSTALLED, str(ROOT)))
    return sorted(directory.glob("orchestrator*.*"))


@needs_systemd
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    # Given the units, whose programs exist
    paths = [path for path in installed_here(tmp_path / "units") if path.is_file()]

    # When systemd reads them
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True, timeout=60, check=False
    )

    # I expect no complaint
    assert (verified.returncode, verified.stderr) == (0, "")


def rated(process: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Return what systemd thinks of what a unit may do."""
    installed_here(directory)
    return subprocess.run(
        [
            *("systemd-analyze", "security", "--no-pager", "--offline=yes", f"--threshold={MAX_EXPOSURE}"),
            directory / f"orchestrator-{process}.service",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@needs_systemd
@pytest.mark.parametrize("process", PROCFILE)
def test_a_unit_is_hardly_exposed(process: str, tmp_path: Path) -> None:
    rating = rated(process, tmp_path / "units")
    assert rating.returncode == 0, rating.stdout[-2000:]


@needs_systemd
@pytest.mark.parametrize(("process", "may"), [("worker", True), ("deliver", False)])
def test_only_the_worker_may_change_the_firewall_and_see_the_engine(process: str, may: bool, tmp_path: Path) -> None:
    # Given systemd's rating, which has a cross before what a unit may do
    rating = rated(process, tmp_path / "units").stdout

    # I expect the settings of the worker to count, which those of all units are applied before
    for setting in ("CapabilityBoundingSet=~CAP_NET_ADMIN", "AmbientCapabilities=", "ProtectProc="):
        assert re.search(rf"^([✓✗]) {re.escape(setting)}", rating, re.MULTILINE)[1] == ("✗" if may else "✓"), setting
    assert re.search(r"^✓ CapabilityBoundingSet=~CAP_SYS_ADMIN", rating, re.MULTILINE)
