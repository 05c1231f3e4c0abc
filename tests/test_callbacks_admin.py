"""Operators see what was sent and how it went, and no secret."""

import uuid
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import transaction
from django.test import RequestFactory

from callbacks import outbox
from callbacks.models import Event, Subscription

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(rf: RequestFactory) -> Any:
    """A request of somebody who may do everything."""
    request = rf.get("/")
    request.user = User.objects.create_superuser("operator")
    return request


@pytest.mark.parametrize("model", [Subscription, Event])
def test_nothing_secret_is_shown_and_nothing_can_be_changed(operator: Any, model: Any) -> None:
    # Given a subscription with secrets, and an event
    outbox.subscribe(uuid.uuid4(), "job-1", "https://u:s3cr3t@h.example/p?t=s3cr3t", "s3cr3t", ())
    with transaction.atomic():
        outbox.publish(Subscription.objects.get().stream, "orchestrator.job.start", "s", {})
    page = admin.site.get_model_admin(model)
    row = model.objects.get()

    # When its pages are shown
    detail = page.changeform_view(operator, str(row.pk)).render().content.decode()
    listing = page.changelist_view(operator).render().content.decode()

    # I expect no secret in them, and no way to change anything
    assert "job-1" in detail
    assert "s3cr3t" not in detail + listing
    assert not page.has_add_permission(operator)
    assert not page.has_change_permission(operator, row)
    assert not page.has_delete_permission(operator, row)
