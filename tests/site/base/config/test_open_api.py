"""The warning that other machines can call the API without a key: when there is one, and where it is said."""

from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import Tags, run_checks
from django.test import Client

from orchestrator_site import gunicorn
from orchestrator_site.admin.start_page.attention import problems
from orchestrator_site.base.config.configuration import load
from orchestrator_site.base.config.open_api import open_api_warning
from tests.helpers.api_calls import configured
from tests.helpers.factories import make_node

EVERYWHERE = "0.0.0.0"
WARNING = f"API_AUTH is off and HOST is {EVERYWHERE}: other machines can run containers and read all jobs without a key"


@pytest.mark.stateless
@pytest.mark.parametrize("host", [EVERYWHERE, "::", "[::]", "10.1.2.3", "198.51.100.1", "host.example", "127.0.0.1.example"])
def test_an_address_for_others_without_keys_is_warned_of(host: str) -> None:
    warning = open_api_warning(load({"HOST": host}))
    assert warning.startswith(f"API_AUTH is off and HOST is {host}: ")
    assert open_api_warning(load({"HOST": host, "API_AUTH": "required"})) == ""


@pytest.mark.stateless
@pytest.mark.parametrize("host", ["", "127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "LOCALHOST."])
def test_loopback_is_not(host: str) -> None:
    assert open_api_warning(load({"HOST": host})) == ""


@pytest.mark.stateless
def test_the_log_has_it_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    server: Any = SimpleNamespace(log=SimpleNamespace(warning=logged.append))
    for host in ("127.0.0.1", EVERYWHERE):
        with configured(host=host):
            monkeypatch.setattr(gunicorn, "_configuration", settings.CONFIGURATION)
            gunicorn.on_starting(server)
    assert logged == [WARNING]


def checked() -> list[tuple[str | None, str]]:
    """Return what the checks of this service, unlike those of Django, say about a deployment."""
    found = run_checks(tags=[Tags.security], include_deployment_checks=True)
    return [(one.id, one.msg) for one in found if str(one.id).startswith("orchestrator.")]


@pytest.mark.django_db
def test_operators_see_it(client: Client) -> None:
    # Given a service that is open to other machines
    make_node()
    with configured(host=EVERYWHERE):
        # I expect to see that in the checks, in /readyz, which is still healthy, and in the admin
        assert checked() == [("orchestrator.W003", WARNING)]
        assert client.get("/readyz").json()["checks"]["api"] == {"status": "healthy", "message": WARNING}
        assert [(one.urgent, one.text) for one in problems() if one.kind == "settings"] == [(True, WARNING)]

    # And nothing of it if it is not
    assert checked() == []
    assert "api" not in client.get("/readyz").json()["checks"]
    assert all(one.kind != "settings" for one in problems())
