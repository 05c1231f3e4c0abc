"""bin/serve runs the service and prints where it is."""

import re
import signal
from pathlib import Path

import pytest
import requests
from django.contrib.auth import authenticate, get_user_model
from django.core.management import call_command
from environment import free_port

from tests.helpers.service_processes import Service
from tests.helpers.waiting import wait_for
from tests.project.commands import STOP_SECONDS, answers, nothing_runs, read_until, started


@pytest.mark.stateless
@pytest.mark.engine
@pytest.mark.any_engine
def test_serve_prints_all_addresses_and_makes_one_login(tmp_path: Path) -> None:
    # Given a service on an empty database
    port = free_port()
    ports = {"PORT": str(port), "METRICS_PORT": str(free_port())}
    url = f"http://127.0.0.1:{port}"
    with started("serve", tmp_path, **ports) as serve:
        printed = read_until(serve, "Login")
        wait_for(lambda: answers(f"{url}/livez"))

        # I expect the printed addresses to answer, and the login to work
        for path in ("/v1/jobs", "/v1/docs", "/admin/"):
            assert url + path in printed
            assert answers(url + path)
        assert logs_in(url, *re.search(r"Login +(\S+) / (\S+)", printed).groups())  # type: ignore[union-attr]
        serve.send_signal(signal.SIGINT)
        serve.communicate(timeout=STOP_SECONDS)
    wait_for(lambda: nothing_runs(tmp_path))

    # When it starts again, I expect no new login
    with started("serve", tmp_path, **ports) as serve:
        wait_for(lambda: answers(f"{url}/livez"))
        serve.terminate()
        assert "Login" not in serve.communicate(timeout=STOP_SECONDS)[0]
    wait_for(lambda: nothing_runs(tmp_path))


@pytest.mark.engine
@pytest.mark.production
def test_serve_runs_the_procfile_if_the_databases_are_set(tmp_path: Path, service: Service) -> None:
    with started("serve", tmp_path, **{**service.environment, "STATE_DIR": str(tmp_path)}) as serve:
        wait_for(lambda: answers(f"{service.url}/readyz"), STOP_SECONDS)
        assert service.wait_decided(service.post_job(command="true"))["status"] == "completed"

        serve.terminate()
        serve.communicate(timeout=STOP_SECONDS)
    wait_for(lambda: nothing_runs(tmp_path))


def logs_in(url: str, username: str, password: str) -> bool:
    with requests.Session() as session:
        session.trust_env = False
        session.get(f"{url}/admin/login/", timeout=10)
        form = {"username": username, "password": password, "csrfmiddlewaretoken": session.cookies["csrftoken"]}
        headers = {"Referer": f"{url}/admin/login/"}
        return session.post(f"{url}/admin/login/?next=/admin/", data=form, headers=headers, timeout=10).url == f"{url}/admin/"


@pytest.mark.django_db
def test_the_operator_is_only_made_in_an_empty_database(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("operator")
    printed = capsys.readouterr().out
    call_command("operator")

    username, password = re.search(r"Login +(\S+) / (\S+)", printed).groups()  # type: ignore[union-attr]
    user = authenticate(username=username, password=password)
    assert user is not None
    assert user.is_superuser
    assert get_user_model().objects.count() == 1
    assert capsys.readouterr().out == ""
