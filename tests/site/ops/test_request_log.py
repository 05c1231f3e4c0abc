"""The id of a request, and the line about it in the log."""

from collections.abc import Iterator

import pytest
from django.test import Client

from jobs.models import Job
from orchestrator_site.ops import request_log
from orchestrator_site.web.wsgi_answer import LOG_FIELDS_KEY
from tests.helpers.api_calls import post_job
from tests.helpers.factories import make_job
from tests.helpers.service_log import ServiceLog, service_log

pytestmark = pytest.mark.django_db


@pytest.fixture
def log(caplog: ServiceLog) -> Iterator[ServiceLog]:
    with service_log(caplog) as log:
        yield log


@pytest.mark.parametrize("given", ["a", "1-67891233-abcdef012345678912345678", "0f" * 64, "Root=1/2+3:4@x~y._"])
def test_a_well_formed_id_is_kept(client: Client, given: str) -> None:
    assert client.get("/livez", headers={"X-Request-Id": given}).headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "a b", "a,b", "a" * 129, "a\nb", 'a"', "\x1b[31m", "ä", "<b>"])
def test_any_other_id_is_replaced(client: Client, given: str) -> None:
    # When two requests have a bad id
    made = [client.get("/livez", headers={"X-Request-Id": given}).headers["X-Request-Id"] for _ in range(2)]

    # I expect a new one for each
    assert all(len(name) == 32 and name.isalnum() for name in made)
    assert made[0] != made[1]


def test_every_answer_has_an_id(client: Client) -> None:
    answers = [
        client.get("/v1/jobs"),
        client.get("/v1/jobs/no-such-job"),
        client.get("/nothing"),
        client.get("/v1/jobs", headers={"Host": "elsewhere.example"}),
        client.get("/admin/"),
        client.get("/static/nothing.css"),
        client.get("/readyz"),
    ]
    assert all(answer.headers["X-Request-Id"] for answer in answers)


def test_a_request_has_one_line_with_the_pattern_of_its_url(client: Client, log: ServiceLog) -> None:
    # When a job is looked for
    client.get("/v1/jobs/no-such-job?wait=0&secret=canary", headers={"X-Request-Id": "r-1"})

    # I expect one line, which says so without the query
    (line,) = log.of(request_log.__name__)
    assert line["message"].startswith("GET /v1/jobs/<job_id> 400 in ")
    assert line["route"] == "/v1/jobs/<job_id>"
    assert (line["method"], line["status"], line["request_id"], line["job"]) == ("GET", 400, "r-1", "no-such-job")
    assert line["ms"] >= 0
    assert "canary" not in str(line)


def test_the_line_of_a_new_job_leads_from_the_request_to_the_job(client: Client, log: ServiceLog) -> None:
    # When a job is posted
    job_id = post_job(client).json()["id"]

    # I expect a line with both ids, and the job to have the request's for the lines of its worker
    (line,) = log.of(request_log.__name__)
    assert line["job"] == job_id
    assert line["request_id"]
    assert Job.objects.get(id=job_id).log_fields == {"job": job_id, "request_id": line["request_id"]}


def test_probes_and_static_files_have_no_line(client: Client, log: ServiceLog) -> None:
    for path in ("/livez", "/readyz", "/static/admin/css/base.css"):
        client.get(path).close()
    assert log.of(request_log.__name__) == []


def test_what_has_no_url_pattern_has_a_line_without_its_path(client: Client, log: ServiceLog) -> None:
    # When requests name nothing that there is
    client.get("/canary")
    client.get("/v1/canary")
    client.generic("CANARY", "/v1/jobs")

    # I expect nothing of them in their lines
    assert [line["message"].partition(" in ")[0] for line in log.of(request_log.__name__)] == [
        "GET (none) 404",
        "GET (none) 404",
        "OTHER /v1/jobs 405",
    ]


def test_lines_within_a_request_have_its_id(client: Client, log: ServiceLog, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a view with a bug
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("jobs.api.job_list.find_job", fail)

    # When a request meets it
    answer = client.get("/v1/jobs/a")

    # I expect both lines to have the id that the client got, and the job
    assert answer.status_code == 500
    assert [line["level"] for line in log.lines] == ["error", "info"]
    assert {line["request_id"] for line in log.lines} == {answer.headers["X-Request-Id"]}
    assert {line["job"] for line in log.lines} == {"a"}


def test_the_rest_of_a_long_answer_has_the_request_and_the_job_too(client: Client) -> None:
    # When a log is answered, I expect the web server to know what its lines are about
    make_job(id="a")
    answer = client.get("/v1/jobs/a/logs", headers={"X-Request-Id": "r-1"})
    assert answer.wsgi_request.META[LOG_FIELDS_KEY] == {"request_id": "r-1", "job": "a"}
    answer.close()
