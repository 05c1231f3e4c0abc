"""What each process of the Procfile imports: memory at rest is mostly code, and each process has its own copy of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.stateless

ROOT = Path(__file__).resolve().parents[3]
OF_WEB = {"django.contrib.admin", "drf_spectacular", "rest_framework", "unfold", "orchestrator_site.urls"}  # 25 MB
OF_A_WORKER = {"docker"}  # 9 MB
OF_MESSAGES = {"dramatiq", "redis"}  # 8 MB
OF_METRICS = {"prometheus_client"}

PRINT_MODULES = "import atexit, sys; atexit.register(lambda: print(*sys.modules, sep='\\n'));"
RUN_MANAGE = "import runpy; sys.argv[0] = 'manage.py'; runpy.run_path('manage.py', run_name='__main__')"


def imported_by(code: str, *arguments: str, state: Path) -> set[str]:
    """Return the names of the modules that a program imports."""
    done = subprocess.run(
        [sys.executable, "-c", PRINT_MODULES + code, *arguments],
        cwd=ROOT,
        env=os.environ | {"STATE_DIR": str(state)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return set(done.stdout.splitlines())


@pytest.mark.parametrize(
    ("process", "unneeded"),
    [
        ("worker", OF_WEB | OF_METRICS),
        ("deliver", OF_WEB | OF_A_WORKER | OF_METRICS),
        ("relay", OF_WEB | OF_A_WORKER | OF_METRICS),
    ],
)
def test_a_process_does_not_import_what_only_others_need(process: str, unneeded: set[str], tmp_path: Path) -> None:
    modules = imported_by(RUN_MANAGE, process, "--help", state=tmp_path)

    assert f"orchestrator_site.management.commands.{process}" in modules
    assert not modules & unneeded


def test_the_parent_of_an_embedded_service_loads_nothing_of_it(tmp_path: Path) -> None:
    modules = imported_by("import gunicorn.arbiter; from orchestrator_site.embedded import EmbeddedApplication", state=tmp_path)

    assert not modules & (OF_WEB | OF_A_WORKER | OF_MESSAGES | {"django.conf", "django.db", "psycopg"})


def test_an_embedded_service_does_not_import_the_client_of_redis(tmp_path: Path) -> None:
    modules = imported_by("import orchestrator_site.wsgi, orchestrator_site.embedded_service", state=tmp_path)

    assert modules >= OF_WEB | {"jobs.engine.factory"}
    assert "redis" not in modules  # 6 MB


@pytest.mark.parametrize(("engine", "other"), [("docker", "kubernetes"), ("kubernetes", "docker")])
def test_a_worker_imports_the_client_of_its_engine_only(tmp_path: Path, engine: str, other: str) -> None:
    # Given a worker that makes its engine, with a configuration that names this one
    code = (
        "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'orchestrator_site.settings';"
        f"os.environ['ENGINE'] = '{engine}';"
        "from django.conf import settings; from jobs.engine.factory import make_engine; from contextlib import suppress;"
        "from jobs.errors import JobError\n"
        "with suppress(JobError): make_engine(settings.CONFIGURATION)"
    )

    # I expect no other client
    modules = imported_by(code, state=tmp_path)
    assert engine in modules
    assert other not in modules


def test_the_command_line_imports_no_django(tmp_path: Path) -> None:
    modules = imported_by(RUN_MANAGE, "run", "--help", state=tmp_path)

    assert "orchestrator_site.client.command_line" in modules
    assert not {module for module in modules if module.split(".")[0] in ("django", "requests", "rich")}


def test_metrics_imports_no_model(tmp_path: Path) -> None:
    # Given the process metrics, and the database that it reads
    code = (
        "from orchestrator_site.ops import metrics, metrics_database;"
        "from orchestrator_site.base.intervals import MetricsIntervals;"
        "metrics_database.Postgresql('postgresql://', MetricsIntervals())"
    )

    # I expect its driver, and nothing of Django, which would take 25 MB
    modules = imported_by(code, state=tmp_path)
    assert "psycopg" in modules
    assert not modules & (OF_WEB | OF_A_WORKER | OF_MESSAGES | {"django.conf", "django.db"})


def test_embedded_metrics_do_not_import_the_driver_of_postgresql(tmp_path: Path) -> None:
    modules = imported_by("import orchestrator_site.ops.metrics", state=tmp_path)

    assert not modules & {"django.conf", "django.db", "psycopg"}


def test_web_imports_everything_before_its_processes_are_forked_and_nothing_that_only_a_worker_needs(tmp_path: Path) -> None:
    modules = imported_by("import orchestrator_site.wsgi", state=tmp_path)

    assert modules >= OF_WEB
    assert not modules & (OF_A_WORKER | OF_METRICS)
