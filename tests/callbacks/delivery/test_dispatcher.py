"""The threads of a `deliver` process, when something goes wrong."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from callbacks import delivery_hints
from callbacks.delivery import delivery_attempt, destination_queue, due_streams
from callbacks.delivery.dispatcher import Dispatcher
from callbacks.delivery.run_sender import Result
from callbacks.delivery.stream_delivery import Claimed, Deliverer, Recorded
from callbacks.delivery.stream_scheduler import Delivery
from callbacks.delivery.stream_secrets import SecretsCache
from callbacks.models import Destination, Subscription
from callbacks.rules.outcome import Outcome
from orchestrator_site.base.intervals import DeliveryIntervals
from tests.helpers.delivery_fixtures import (
    DELIVERED,
    EXIT,
    LOG,
    PATIENT,
    PENDING,
    START,
    Gate,
    Stream,
    deliver_all,
    deliver_process,
    in_threads,
    streams_to,
)
from tests.helpers.receiver import Answer, Received, Receiver
from tests.helpers.service_log import service_log
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

INTERVALS = DeliveryIntervals(answer=25.0, database_retry=0.05)


def test_results_are_recorded_when_the_database_is_back(receiver: Receiver) -> None:
    class FailingOnce(Deliverer):
        failures = 3

        def record(self, results: Any) -> Recorded:
            if results and self.failures:
                self.failures -= 1
                raise OperationalError
            return super().record(results)

    # Given a database that fails as results are recorded
    with deliver_process(FailingOnce(INTERVALS), threads=4, intervals=INTERVALS):
        # When events are published
        (stream,) = streams_to(receiver.url, 1, START, EXIT)

        # I expect each to be sent once
        wait_for(lambda: stream.states == [DELIVERED, DELIVERED])
    assert len(receiver.requests) == 2


def test_a_stream_that_cannot_be_decrypted_holds_up_no_other(receiver: Receiver) -> None:
    # Given a stream whose URL cannot be decrypted, and others that are due
    damaged, *others = streams_to(receiver.url, 3)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE callbacks_subscription SET url = 'damaged' WHERE id = %s", [damaged.pk])

    # When a process delivers, I expect the others to be delivered, and the attempt for that one to say why it was not sent
    with deliver_process(Deliverer(INTERVALS), threads=4, intervals=INTERVALS):
        wait_for(lambda: damaged.events[0].attempts.exists() and [stream.states for stream in others] == [[DELIVERED]] * 2)
    assert "ENCRYPTION_KEYS" in damaged.events[0].attempts.get().error


def test_an_error_with_one_stream_holds_up_no_other(receiver: Receiver) -> None:
    class Faulty(Deliverer):
        def claim(self, identities: Sequence[int]) -> Claimed:
            if faulty.pk in identities:
                raise ZeroDivisionError
            return super().claim(identities)

        def record(self, results: Sequence[Result]) -> Recorded:
            if any(event == partly.events[1] for result in results for event, _ in result.attempts):
                raise ZeroDivisionError
            return super().record(results)

    # Given a stream that cannot be claimed, one whose second result cannot be recorded, and a good one
    fast_from_now_on(receiver)
    faulty, partly, good = streams_to(receiver.url, 3)
    partly.publish(EXIT)

    # When a process delivers them, I expect it to go on with the others
    with deliver_process(Faulty(PATIENT), threads=4, intervals=INTERVALS):
        wait_for(lambda: good.states == [DELIVERED] and len(receiver.requests) == 3)

        # and, after the lease of the run that could not be recorded, to record its first event
        partly.expire_lease()
        delivery_hints.send()
        wait_for(lambda: partly.states == [DELIVERED, PENDING])
        good.publish(LOG)
        wait_for(lambda: good.states == [DELIVERED] * 2)
    assert faulty.states == [PENDING]


def fast_from_now_on(receiver: Receiver) -> None:
    """Let the receiver have several deliveries at once."""
    deliver_all(*streams_to(receiver.url, 1, START, LOG, EXIT))
    receiver.requests.clear()


def test_results_of_deliveries_in_flight_are_recorded_together(receiver: Receiver) -> None:
    class Counting(Deliverer):
        def record(self, results: Sequence[Result]) -> Recorded:
            counts.append(len(results))
            return super().record(results)

    # Given a process that waits as long as it takes for results to record together, and streams that are sent to at once
    counts: list[int] = []
    patient = replace(INTERVALS, gather=60.0)
    fast_from_now_on(receiver)
    streams = streams_to(receiver.url, 2)

    # When a process delivers them, I expect one transaction for both results
    with deliver_process(Counting(patient), threads=4, intervals=patient):
        wait_for(lambda: [stream.states for stream in streams] == [[DELIVERED]] * 2)
    assert counts == [2]


def test_a_result_does_not_wait_for_a_host_that_hangs(receiver: Receiver) -> None:
    # Given a stream whose host does not answer, and one whose host does
    with Receiver() as hanging:
        hanging.will(Answer(fault="hang"))
        (stuck,), (other,) = streams_to(hanging.url, 1), streams_to(receiver.url, 1)

        # When a process delivers them, I expect the result of the other to be recorded meanwhile
        intervals = replace(INTERVALS, answer=100.0, lease=200.0, stop=0.0)
        with deliver_process(Deliverer(intervals), threads=4, intervals=intervals):
            wait_for(lambda: other.states == [DELIVERED] and hanging.requests)
            assert stuck.states == [PENDING]


def test_a_delivery_that_fails_unexpectedly_leaves_its_thread_to_others(receiver: Receiver) -> None:
    # Given a process with one thread, which an error meets as it sends
    failed: list[int] = []

    def fail_once(*arguments: Any) -> Outcome:
        if not failed:
            failed.append(1)
            raise ZeroDivisionError
        return delivery_attempt.send(*arguments)

    fast_from_now_on(receiver)
    broken, other = streams_to(receiver.url, 2)
    with deliver_process(Deliverer(INTERVALS, send=fail_once), threads=1, intervals=INTERVALS):
        # I expect another stream to be delivered, and this one to wait for the end of its lease
        wait_for(lambda: other.states == [DELIVERED], what="the other stream to be delivered")
        assert broken.states == [PENDING]


def test_what_was_granted_is_sent_before_waiting_streams_are_woken(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a destination whose window grows while streams wait for it, and a database that fails when these are to be woken
    is_next_sent = threading.Event()
    were_sent: list[bool] = []

    def respond(received: Received) -> Answer:
        if received.json["jobsequence"] == 2:
            is_next_sent.set()
        return Answer()

    def fail(_: int) -> bool:
        were_sent.append(is_next_sent.wait(5))
        raise OperationalError

    receiver.respond = respond
    monkeypatch.setattr(destination_queue, "wake_waiting", fail)
    streams = streams_to(receiver.url, 3, START, EXIT)

    # When a process delivers, I expect the next event to be sent before the waiting streams are woken, and everything in the end
    with deliver_process(Deliverer(INTERVALS), threads=4, intervals=INTERVALS):
        wait_for(lambda: all(stream.states == [DELIVERED, DELIVERED] for stream in streams), what="all to be delivered")
    assert were_sent
    assert all(were_sent)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no locks on rows")
def test_a_process_delivers_while_a_destination_is_locked(receiver: Receiver) -> None:
    with Receiver() as other, deliver_process(Deliverer(INTERVALS), threads=4, intervals=INTERVALS):
        # Given a destination that another session has locked
        locked = Stream(other.url)
        with transaction.atomic():
            Destination.objects.select_for_update().get(pk=locked.row.destination_id)
            # When events are published to it and to another one, I expect those of the other to be delivered
            free: list[Stream] = []
            in_threads(1, lambda _: (locked.publish(), free.extend(streams_to(receiver.url, 1))))
            in_threads(1, lambda _: wait_for(lambda: free[0].states == [DELIVERED], 5, "the delivery"))
        wait_for(lambda: locked.states == [DELIVERED])


def test_locked_streams_do_not_hide_others(receiver: Receiver) -> None:
    class Locked(Deliverer):
        def claim(self, identities: Sequence[int]) -> Claimed:
            free = [pk for pk in identities if is_unlocked.is_set() or pk == last.pk]
            claimed = super().claim(free)
            return claimed._replace(locked=claimed.locked + [pk for pk in identities if pk not in free])

    # Given a process with one thread, and several streams that became due before another one, but are locked
    is_unlocked = threading.Event()
    fast_from_now_on(receiver)
    *locked, last = streams_to(receiver.url, 4)
    with deliver_process(Locked(INTERVALS), threads=1, intervals=INTERVALS):
        # I expect that one to be delivered
        wait_for(lambda: last.states == [DELIVERED], what="the stream that is not locked")

        # and the others once they are not locked any more, without another hint
        is_unlocked.set()
        wait_for(lambda: all(stream.states == [DELIVERED] for stream in locked), what="the others")


def test_a_process_finds_due_streams_without_hints(receiver: Receiver) -> None:
    # Given a process that hears of nothing
    intervals = DeliveryIntervals(answer=25.0, look=0.05)
    dispatcher = Dispatcher(Deliverer(intervals), intervals)
    dispatcher.start()
    try:
        # When events are published later, I expect them to be delivered
        for _ in range(2):
            (stream,) = streams_to(receiver.url, 1)
            wait_for(lambda stream=stream: stream.states == [DELIVERED], what="the delivery")
    finally:
        dispatcher.stop(intervals.stop)


def test_a_delivery_is_not_sent_when_its_lease_is_nearly_over(receiver: Receiver) -> None:
    class Late(Deliverer):
        def claim(self, identities: Sequence[int]) -> Claimed:
            claimed = super().claim(identities)
            late = [replace(delivery, send_by=delivery.send_by - 6) for delivery in claimed.deliveries if not released]
            released.extend(late)
            return claimed._replace(deliveries=late or claimed.deliveries)

    # Given a delivery that was claimed longer ago than the lease allows: 5 seconds, with 25 for an attempt
    released: list[Delivery] = []
    fast_from_now_on(receiver)
    late, other = streams_to(receiver.url, 2)
    with deliver_process(Late(INTERVALS), threads=1, intervals=INTERVALS):
        # I expect it not to be sent, and its thread to be left to the other
        wait_for(lambda: other.states == [DELIVERED], what="the other stream")
        assert (late.states, len(receiver.requests)) == ([PENDING], 1)

        # and it to be sent once the lease is over
        late.expire_lease()
        delivery_hints.send()
        wait_for(lambda: late.states == [DELIVERED], what="the late stream")


def test_events_are_delivered_although_no_more_threads_can_be_started(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a process that cannot start its first sender
    start, refused = threading.Thread.start, []

    def refuse_once(thread: threading.Thread) -> None:
        if thread.name == "sender 0" and not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    (stream,) = streams_to(receiver.url, 1)

    # I expect it to try again, and to end all its threads
    with deliver_process(Deliverer(INTERVALS), threads=1, intervals=INTERVALS):
        wait_for(lambda: stream.states == [DELIVERED], what="the delivery")
    assert refused
    assert len(receiver.requests) == 1


def test_a_stopping_process_records_what_is_answered_in_time(receiver: Receiver) -> None:
    # Given a delivery in flight, of a stream with another event
    gate = Gate(receiver)
    (stream,) = streams_to(receiver.url, 1, START, EXIT)
    with deliver_process(Deliverer(INTERVALS), threads=4, intervals=INTERVALS):
        gate.wait_for(1)
        # When its process stops while it is answered
        gate.open()
    # I expect the result to be stored, and the stream to be due for another process
    assert stream.states[0] == DELIVERED
    assert stream.states == [DELIVERED, DELIVERED] or due_streams.due(10) == [stream.pk]


def test_a_stopping_process_gives_up_what_is_not_answered(receiver: Receiver) -> None:
    gate = Gate(receiver)
    (stream,) = streams_to(receiver.url, 1)
    with deliver_process(Deliverer(INTERVALS), threads=4, intervals=DeliveryIntervals(stop=0.1)):
        gate.wait_for(1)
    assert due_streams.due(10) == [stream.pk]

    # The thread that still waits uses the database once more, which the test must not leave before.
    gate.open()
    wait_for(lambda: all(thread.name != "dispatcher" for thread in threading.enumerate()), what="the end of the dispatcher")


def test_secrets_are_kept_for_a_limited_number_of_streams(receiver: Receiver, django_assert_num_queries: Any) -> None:
    # Given a cache for two streams, and three streams
    cache = SecretsCache(max_kept=2)
    for stream in streams_to(receiver.url, 3):
        cache.fill_in([stream.row])
    rows = list(Subscription.objects.defer(*Subscription.SECRETS).order_by("pk"))

    # I expect the last two to be read from memory
    with django_assert_num_queries(0):
        cache.fill_in(rows[1:])
        assert {row.key for row in rows[1:]} == {"the key"}
    with django_assert_num_queries(1):
        cache.fill_in(rows[:1])
    assert rows[0].url == receiver.url


def test_the_lines_about_a_delivery_have_its_job_and_event(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    class FailingOnce(Deliverer):
        failures = 1

        def send(self, delivery: Delivery) -> Result:
            if self.failures:
                self.failures -= 1
                raise ZeroDivisionError
            return super().send(delivery)

    # Given a bug that is met when an event is sent
    with service_log(caplog) as log, deliver_process(FailingOnce(INTERVALS), threads=1, intervals=INTERVALS):
        (stream,) = streams_to(receiver.url, 1)

        # When it is reported, I expect the line to say what was to be sent
        wait_for(lambda: log.about("an unexpected error in a delivery"))
    (line,) = log.about("an unexpected error in a delivery")
    subscription = Subscription.objects.get(pk=stream.pk)
    assert line["job"] == subscription.subject
    assert line["event"] == str(subscription.events.get().pk)
