"""A change and the changed row in one statement."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from jobs.models import Job
from orchestrator_site.base.db.returning import update_returning
from tests.helpers.factories import make_job

pytestmark = pytest.mark.django_db


def test_the_changed_row_comes_with_the_change() -> None:
    # Given a row with values of all kinds
    job = make_job(environment={"A": "secret"}, meta={"a": [1, None]}, command=["a", "b"])

    # When it is changed by values and by expressions
    with CaptureQueriesContext(connection) as statements:
        (changed,) = update_returning(Job.objects.filter(uuid=job.uuid), doing="x", claims=F("claims") + 1, started_at=Now())

    # I expect one statement, and the row as another query returns it
    assert len(statements) == 1
    stored = Job.objects.get()
    assert {field.attname: getattr(changed, field.attname) for field in Job._meta.concrete_fields} == {
        field.attname: getattr(stored, field.attname) for field in Job._meta.concrete_fields
    }
    assert (changed.doing, changed.claims, changed.environment) == ("x", 1, {"A": "secret"})
    assert changed.started_at
    assert abs(changed.started_at - datetime.now(UTC)) < timedelta(minutes=5)


def test_no_row_is_changed_that_does_not_match() -> None:
    make_job()

    assert update_returning(Job.objects.filter(doing="other"), doing="x") == []
    assert Job.objects.get().doing == ""
