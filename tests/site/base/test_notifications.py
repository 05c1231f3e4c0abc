"""Notifications: listeners are woken soon, also after the connection to Redis was lost."""

import threading
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.db import transaction

from orchestrator_site.base import broker, notifications
from orchestrator_site.base.intervals import BrokerIntervals
from orchestrator_site.base.notifications import Listener, notify, notify_on_commit
from tests.helpers.waiting import wait_for

needs_redis = pytest.mark.skipif(settings.CONFIGURATION.embedded, reason="needs Redis")


@pytest.fixture
def woken() -> threading.Event:
    return threading.Event()


@pytest.fixture
def listener(woken: threading.Event) -> Iterator[Listener]:
    """A listener that receives notifications of `topic`."""
    listener = Listener("topic", woken.set, BrokerIntervals(listen=0.1, retry=0.1))
    listener.start()
    if not settings.CONFIGURATION.embedded:
        assert woken.wait(10)
        woken.clear()
    yield listener
    listener.stop()


@pytest.mark.usefixtures("listener")
def test_a_notification_wakes_the_listener_of_its_topic(woken: threading.Event) -> None:
    # When another topic is notified, I expect nothing
    notify("another topic")
    assert not woken.is_set()

    # When its topic is, I expect it to be woken
    notify("topic")
    assert woken.wait(10)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("listener")
def test_a_transaction_notifies_when_it_is_committed(woken: threading.Event) -> None:
    # Given a notification in a transaction
    with transaction.atomic():
        notify_on_commit("topic")

        # I expect it not to be sent before the end
        assert not woken.is_set()
    assert woken.wait(10)

    # and never if the transaction is rolled back
    woken.clear()
    with transaction.atomic():
        notify_on_commit("topic")
        transaction.set_rollback(True)
    assert not woken.is_set()


def test_a_stopped_listener_is_not_woken(listener: Listener, woken: threading.Event) -> None:
    listener.stop()
    if not settings.CONFIGURATION.embedded:
        wait_for(lambda: not any("listener topic" in thread.name for thread in threading.enumerate()), 10, "its thread's end")
    notify("topic")
    assert not woken.is_set()
    notifications._local["topic"].append(woken.set)  # the fixture stops it again


@needs_redis
@pytest.mark.usefixtures("listener")
def test_a_listener_connects_again_and_is_woken_because_notifications_may_be_lost(woken: threading.Event) -> None:
    # When its connection is lost
    broker._redis_client().client_kill_filter(_type="pubsub")

    # I expect it to be woken without a notification, and by the next one
    assert woken.wait(10)
    woken.clear()
    notify("topic")
    assert woken.wait(10)
