"""A process that delivers in batches is killed at any of its effects: another one delivers all events, in order.

Events that were sent and not recorded arrive again under the same ids, with the same bytes; nothing else does.
"""

import itertools

import pytest
from django.db.models.functions import Now

from callbacks import delivery_hints
from callbacks.delivery.dispatcher import Dispatcher
from callbacks.delivery.stream_delivery import Deliverer
from callbacks.models import Attempt, Destination, Event, Subscription
from tests.helpers.delivery_fixtures import DELIVERED, EXIT, PATIENT, START, Stream, deliver_all, parked, streams_to
from tests.helpers.kills import Killer, Moment, killing
from tests.helpers.receiver import Receiver
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

STREAMS = 5  # more than a new destination may have at once; with each answer it may have more


def deliver_and_kill(streams: list[Stream], place: int, moment: Moment) -> Killer:
    """Deliver with a process that is killed at its `place`th effect, or until everything is delivered."""
    dispatcher = Dispatcher(Deliverer(PATIENT), PATIENT, threads=STREAMS)
    with killing("dispatcher", place, moment) as killer, pytest.MonkeyPatch.context() as patch:
        send = delivery_hints.send
        patch.setattr(delivery_hints, "send", lambda: killer.at("hint", send))
        dispatcher.start()
        wait_for(lambda: killer.killed or all(set(stream.states) == {DELIVERED} for stream in streams), what="the end")
        dispatcher._stopping = True
        dispatcher.wake()
        dispatcher._thread.join(10)
    for _ in dispatcher._senders:  # what was on its way is sent and not recorded
        dispatcher._departures.put(None)
    for sender in dispatcher._senders:
        sender.join(10)
    return killer


def numbers_by_subject(receiver: Receiver) -> dict[str, list[int]]:
    """Return the sequence numbers in the order of their arrival, with repetitions."""
    numbers: dict[str, list[int]] = {}
    for received in receiver.requests:
        numbers.setdefault(received.json["subject"], []).append(received.json["jobsequence"])
    return numbers


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_process_killed_at_any_place_is_replaced(receiver: Receiver, moment: Moment) -> None:
    effects: list[str] = []
    for place in itertools.count(1):
        # Given streams to a new destination, and a process that is killed while it delivers them
        streams = streams_to(receiver.url, STREAMS, START, EXIT)
        killer = deliver_and_kill(streams, place, moment)
        effects += killer.effects

        # When its leases have expired, and another process delivers
        Subscription.objects.filter(lease_token__isnull=False).update(lease_until=Now())
        deliver_all(*streams)

        # I expect all events in order, and again only those that were on their way
        print(killer.story)
        arrived = numbers_by_subject(receiver)
        assert len(arrived) == STREAMS
        for numbers in arrived.values():
            assert numbers in ([1, 2], [1, 1, 2], [1, 2, 2], [1, 2, 1, 2])
        bodies = {(received.headers["webhook-id"], received.body) for received in receiver.requests}
        assert len(bodies) == 2 * STREAMS
        assert len(receiver.requests) - len(bodies) <= (2 * STREAMS if killer.killed else 0)
        assert parked() == 0
        if not killer.killed:
            break
        for model in (Attempt, Event, Subscription, Destination):
            model.objects.all().delete()
        receiver.requests.clear()
    assert {"commit", "hint"} <= set(effects)
