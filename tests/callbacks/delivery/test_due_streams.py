"""Which streams are due. The deliverers and the relay ask with statements of their own, which must agree."""

from datetime import timedelta
from itertools import product
from uuid import uuid4

import pytest
from django.utils import timezone

from callbacks.delivery import due_streams
from callbacks.models import Subscription
from tests.helpers import factories

pytestmark = pytest.mark.django_db

PAST, FUTURE = timedelta(minutes=-1), timedelta(minutes=1)


def test_deliverers_and_the_relay_find_the_same_streams() -> None:
    # Given streams with each kind of time and of lease
    now = timezone.now()
    times = {None: None, PAST: now + PAST, FUTURE: now + FUTURE}
    for due_at, leased_until in product(times.values(), repeat=2):
        stream = uuid4()
        factories.subscribe(stream, "job", "http://h.example/")
        Subscription.objects.filter(stream=stream).update(next_attempt_at=due_at, lease_until=leased_until)

    # I expect those to be due whose time has come, and whose lease is over if they had one
    expected = Subscription.objects.filter(next_attempt_at=times[PAST]).exclude(lease_until=times[FUTURE])
    due = due_streams.due(100)
    assert len(due) == 2
    assert set(due) == set(due_streams.due_rows().values_list("pk", flat=True)) == set(expected.values_list("pk", flat=True))

    # and those that are being looked at already to be left out
    assert due_streams.due(100, but=due[:1]) == due[1:]
