"""The commands in bin/, run as a newcomer runs them."""

import os
import re
import shutil
import signal
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import docker
import firewall
import image
import leftovers
import peers
import pytest
import requests
from django.contrib.auth import authenticate, get_user_model
from django.core.management import call_command
from dockerd import Daemon
from environment import free_port, without_service
from hypothesis import given
from hypothesis import strategies as st
from processes import processes_with_argument, processes_with_variable

from tests.helpers.service_processes import Service
from tests.helpers.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
MARK = "ORCHESTRATOR_COMMAND_TEST"
ENDS_SECONDS = 60


@contextmanager
def started(command: Path, state: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """The command with a state directory of its own; killed at the end, should it still run."""
    environment = without_service() | {"STATE_DIR": str(state), MARK: str(state)} | variables
    process = subprocess.Popen(
        [command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, cwd="/"
    )
    assert process.stdout
    with process.stdout:
        try:
            yield process
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What the command prints, up to the line with this text."""
    assert process.stdout
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"the command ended without {text!r}: {''.join(lines)}")


def installations() -> set[str]:
    """The networks that services have on the engine."""
    with closing(docker.from_env()) as client:
        return {network.id or "" for network in client.networks.list(filters={"label": leftovers.INSTANCE_LABEL})}


def nothing_runs(state: Path) -> bool:
    return not processes_with_variable(MARK, str(state))


# -- bin/setup ---------------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository in a directory with a space in its name, whose requirements are none."""
    clone = tmp_path / "my clone"
    shutil.copytree(ROOT / "bin", clone / "bin")
    (clone / "tests").mkdir()
    for path in ("requirements.txt", "tests/requirements.txt"):
        (clone / path).write_text("# none\n")
    return clone


def set_up(clone: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([clone / "bin" / "setup"], cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.stateless
@pytest.mark.packages
def test_setup_installs_once_however_often_and_at_once_it_is_called(clone: Path) -> None:
    # Given two commands that start at the same time in a fresh clone, and a third later
    first_two = [set_up(clone), set_up(clone)]
    printed = [process.communicate(timeout=ENDS_SECONDS)[0] for process in first_two]
    later = set_up(clone)
    printed.append(later.communicate(timeout=ENDS_SECONDS)[0])

    # I expect all three to succeed, one to have installed, and the environment to work
    assert [process.returncode for process in (*first_two, later)] == [0, 0, 0], printed
    assert sum("Installing" in text for text in printed) == 1
    subprocess.run([clone / ".venv" / "bin" / "python", "-m", "pip", "--version"], check=True, capture_output=True)


@pytest.mark.stateless
@pytest.mark.packages
def test_setup_starts_again_after_an_interrupted_or_failed_install(clone: Path) -> None:
    # Given an install that failed half way
    (clone / "requirements.txt").write_text("--no-index\nno-such-package==1\n")
    failed = set_up(clone)
    text = failed.communicate(timeout=ENDS_SECONDS)[0]
    assert failed.returncode != 0
    assert "could not be made" in text

    # When the cause is gone and it is called again, I expect an environment made anew
    (clone / "requirements.txt").write_text("# none\n")
    again = set_up(clone)
    text = again.communicate(timeout=ENDS_SECONDS)[0]
    assert again.returncode == 0, text
    assert "Installing" in text


# -- the engine --------------------------------------------------------------------------------


def test_an_engine_that_does_not_answer_is_told_in_one_sentence(tmp_path: Path) -> None:
    environment = without_service() | {"DOCKER_HOST": f"unix://{tmp_path}/nothing.sock", "STATE_DIR": str(tmp_path)}
    ended = subprocess.run(
        [ROOT / "bin" / "serve"], env=environment, capture_output=True, text=True, timeout=ENDS_SECONDS, check=False
    )

    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "DOCKER_HOST" in ended.stderr


@pytest.mark.stateless
@pytest.mark.engine
@pytest.mark.alone
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("dockerd"), reason="only root can start a dockerd")
@pytest.mark.parametrize("crashes", [False, True])
def test_an_engine_of_our_own_leaves_nothing(tmp_path: Path, crashes: bool) -> None:
    # Given an engine of our own, on which a container runs from the image that stands in for alpine
    daemon = Daemon(tmp_path / "engine")
    host = daemon.start()
    try:
        with closing(docker.DockerClient(base_url=host)) as client:
            image.make(client)
            container = client.containers.run("alpine:latest", "id -un", user="nobody", detach=True)
            container.wait()
            assert container.logs() == b"nobody\n"
            client.containers.run("alpine:latest", "sleep 1000", detach=True)
        if crashes:
            os.kill(int((tmp_path / "engine" / "dockerd.pid").read_text()), signal.SIGKILL)
    finally:
        # When it is stopped, running or not
        daemon.stop()

    # I expect nothing of it to be left but its directory
    directory = urlsplit(host).path.removesuffix("/docker.sock")
    assert not Path(directory).exists()
    assert not processes_with_argument(str(tmp_path))
    assert not processes_with_argument(directory)
    assert not Path("/sys/class/net", daemon.bridge).exists()
    assert not [rule for table in firewall.TABLES for rule in firewall.rules("iptables", table) if daemon.bridge in rule]
    assert daemon.host() is None


# -- bin/demo ----------------------------------------------------------------------------------


@pytest.mark.stateless
@pytest.mark.engine
@pytest.mark.any_engine
@pytest.mark.alone
def test_the_demo_shows_every_event_and_leaves_nothing(tmp_path: Path) -> None:
    before = installations()
    with started(ROOT / "bin" / "demo", tmp_path) as demo:
        printed = demo.communicate(timeout=120)[0]

    assert demo.returncode == 0, printed
    for event in ("input", "start", "log", "exit", "output", "complete"):
        assert re.search(rf"^ +\d+  {event} +signed", printed, re.MULTILINE), printed
    assert not list(tmp_path.glob("demo-*"))
    assert nothing_runs(tmp_path)
    assert installations() <= before


@pytest.mark.stateless
@pytest.mark.engine
@pytest.mark.any_engine
@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    before = installations()
    with started(ROOT / "bin" / "demo", tmp_path) as demo:
        read_until(demo, "POST /v1/jobs")
        demo.send_signal(number)
        demo.communicate(timeout=ENDS_SECONDS)

    assert demo.returncode == 128 + number
    assert not list(tmp_path.glob("demo-*"))
    assert nothing_runs(tmp_path)
    assert installations() <= before


@given(secret=st.binary(min_size=1, max_size=40), body=st.text(max_size=200), other=st.text(max_size=200))
def test_the_demo_sees_a_body_that_is_not_the_signed_one(secret: bytes, body: str, other: str) -> None:
    key = "whsec_" + b64encode(secret).decode()

    fault = peers.signature_fault(key, other.encode(), {"X-Signature-256": peers.body_signature(key, body.encode())})

    assert ("X-Signature-256" in fault) == (body != other)


# -- bin/serve ---------------------------------------------------------------------------------


@pytest.mark.stateless
@pytest.mark.engine
@pytest.mark.any_engine
def test_serve_says_where_everything_is_and_makes_one_login(tmp_path: Path) -> None:
    # Given a service on an empty database
    port = free_port()
    ports = {"PORT": str(port), "METRICS_PORT": str(free_port())}
    url = f"http://127.0.0.1:{port}"
    with started(ROOT / "bin" / "serve", tmp_path, **ports) as serve:
        printed = read_until(serve, "Login")
        wait_for(lambda: answers(f"{url}/livez"))

        # I expect what it printed to be there, and the login to work
        for path in ("/v1/jobs", "/v1/docs", "/admin/"):
            assert url + path in printed
            assert answers(url + path)
        assert logs_in(url, *re.search(r"Login +(\S+) / (\S+)", printed).groups())  # type: ignore[union-attr]
        serve.send_signal(signal.SIGINT)
        serve.communicate(timeout=ENDS_SECONDS)
    wait_for(lambda: nothing_runs(tmp_path))

    # When it starts again, I expect no other login
    with started(ROOT / "bin" / "serve", tmp_path, **ports) as serve:
        wait_for(lambda: answers(f"{url}/livez"))
        serve.terminate()
        assert "Login" not in serve.communicate(timeout=ENDS_SECONDS)[0]
    wait_for(lambda: nothing_runs(tmp_path))


@pytest.mark.engine
@pytest.mark.production
def test_serve_runs_the_procfile_where_the_databases_are_set(tmp_path: Path, service: Service) -> None:
    with started(ROOT / "bin" / "serve", tmp_path, **{**service.environment, "STATE_DIR": str(tmp_path)}) as serve:
        wait_for(lambda: answers(f"{service.url}/readyz"), ENDS_SECONDS)
        assert service.wait_decided(service.post_job(command="true"))["status"] == "completed"

        serve.terminate()
        serve.communicate(timeout=ENDS_SECONDS)
    wait_for(lambda: nothing_runs(tmp_path))


def answers(url: str) -> bool:
    with suppress(requests.ConnectionError), requests.Session() as session:
        session.trust_env = False
        return session.get(url, timeout=10).ok
    return False


def logs_in(url: str, username: str, password: str) -> bool:
    with requests.Session() as session:
        session.trust_env = False
        session.get(f"{url}/admin/login/", timeout=10)
        form = {"username": username, "password": password, "csrfmiddlewaretoken": session.cookies["csrftoken"]}
        headers = {"Referer": f"{url}/admin/login/"}
        return session.post(f"{url}/admin/login/?next=/admin/", data=form, headers=headers, timeout=10).url == f"{url}/admin/"


@pytest.mark.django_db
def test_the_operator_is_made_on_an_empty_database_only(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("operator")
    printed = capsys.readouterr().out
    call_command("operator")

    username, password = re.search(r"Login +(\S+) / (\S+)", printed).groups()  # type: ignore[union-attr]
    user = authenticate(username=username, password=password)
    assert user is not None
    assert user.is_superuser
    assert get_user_model().objects.count() == 1
    assert capsys.readouterr().out == ""


# -- README.md ---------------------------------------------------------------------------------


def readme_commands() -> list[str]:
    """Return the shell blocks of the README, in order."""
    return re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.stateless
def test_the_readme_begins_with_demo_test_and_serve() -> None:
    blocks = readme_commands()

    assert blocks[:2] == ["bin/demo\nbin/test\n", "bin/serve\n"]
    assert all(os.access(ROOT / command, os.X_OK) for command in "".join(blocks[:2]).split())


@pytest.mark.stateless
@pytest.mark.engine
def test_the_requests_in_the_readme_work_as_copied(tmp_path: Path) -> None:
    # Given a service as the README starts it, on a free port
    port = free_port()
    requests_shown = [block.replace(":8080/", f":{port}/") for block in readme_commands()[2:]]
    with started(ROOT / "bin" / "serve", tmp_path, PORT=str(port), METRICS_PORT=str(free_port())) as serve:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/readyz"), ENDS_SECONDS)

        # When the requests are copied into a shell, one block after the other
        printed = [
            subprocess.run(["bash", "-ec", block], capture_output=True, text=True, check=True, timeout=120).stdout
            for block in requests_shown
        ]
        serve.terminate()
        serve.communicate(timeout=ENDS_SECONDS)

    # I expect the answer that the README shows, and a job that completes and prints its text
    assert printed[0] == '{"id": "hello", "status": "accepted"}'
    assert printed[0] in (ROOT / "README.md").read_text()
    assert '"status": "completed"' in printed[1]
    assert printed[1].endswith("HELLO, WORLD\n")
