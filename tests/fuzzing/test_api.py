"""Hostile requests to the API, in this process."""

import logging

import pytest

from orchestrator_site.wsgi import application
from tests.fuzzing import campaign
from tests.fuzzing.api import ApiAttack
from tests.fuzzing.inputs.targets import JOB_ID
from tests.helpers.api_calls import store_lines
from tests.helpers.factories import make_job
from tests.site.web.web_servers import serving


@pytest.mark.django_db(transaction=True)
def test_hostile_requests_are_answered_or_refused(caplog: pytest.LogCaptureFixture) -> None:
    # Given a job with a log
    store_lines(make_job(id=JOB_ID), "a", "b")

    # When hostile clients connect
    with serving(application) as web:
        found = campaign.run("requests", ApiAttack(web.address), inputs=120)

    # I expect answers other than 500, in time, and no error in the service's log
    assert not found.errors
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
