"""The settings of a production service behind a proxy that terminates TLS."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.stateless
ROOT = Path(__file__).resolve().parents[2]

# In a process of its own, because settings are read once. The database is not needed: a key file has a key.
_ASK = """
import io, json
import django
django.setup()
from django.conf import settings
from django.core.checks import run_checks
from django.core.management import call_command
from django.test import Client
errors = io.StringIO()
call_command("check", deploy=True, fail_level="WARNING", stdout=errors, stderr=errors)
def get(path, **headers):
    answer = Client(headers={"Host": "orchestrator.example.com", **headers}).get(path)
    headers = [answer.headers.get(name) for name in ("Location", "Strict-Transport-Security")]
    return [answer.status_code, *headers, answer.cookies.output()]
print(json.dumps({
    "check": errors.getvalue(),
    "all": [found.id for found in run_checks(include_deployment_checks=True)],
    "plain": get("/admin/login/"),
    "api": get("/v1/openapi.json"),
    "probe": get("/livez"),
    "secure": get("/admin/login/", **{"X-Forwarded-Proto": "https"}),
    "session": [settings.SESSION_COOKIE_NAME, settings.SESSION_COOKIE_SECURE, settings.SESSION_COOKIE_HTTPONLY],
}))
"""


def test_django_has_nothing_to_say_about_them(tmp_path: Path) -> None:
    # Given the variables of a production service, with https
    (tmp_path / "keys").write_text("a-key\n")
    variables = {
        "DATABASE_URL": "postgresql://user:password@127.0.0.1:9/name",
        "REDIS_URL": "redis://127.0.0.1:9/0",
        "PUBLIC_URL": "https://orchestrator.example.com",
        "SECRET_KEY": "7hB2kq0Zr5vXy8Tn3Wm6Jc9Lp1Df4Gs_AeUiOoQwRtYzVbNxMk",
        "ENCRYPTION_KEYS": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        "API_KEY_FILE": str(tmp_path / "keys"),
        "STATE_DIR": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "orchestrator_site.settings",
        "PATH": os.environ["PATH"],
    }

    # When the service is checked
    done = subprocess.run([sys.executable, "-c", _ASK], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])

    # I expect no warning; the admin only over https, with cookies for this host alone; and the API and probes as they are
    assert "no issues" in found["check"]
    assert found["all"] == ["security.W005", "security.W021"]  # silenced: HSTS of other hosts, which only their owner can promise
    assert found["plain"][:2] == [301, "https://orchestrator.example.com/admin/login/"]
    assert found["api"][0] == found["probe"][0] == 200
    status, _, hsts, cookies = found["secure"]
    assert status == 200
    assert re.fullmatch(r"max-age=\d+", hsts)
    assert "__Host-csrftoken=" in cookies
    assert "Secure" in cookies
    assert "SameSite=Strict" in cookies
    assert found["session"] == ["__Host-sessionid", True, True]
