"""Events reach their destination in order, at least once, whatever happens in between."""

import hmac
import socket
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from standardwebhooks import Webhook

from callbacks import outbox
from callbacks.delivery import attempt_results, delivery_attempt, due_streams
from callbacks.delivery.stream_delivery import Deliverer
from callbacks.models import Attempt, Event, Subscription
from callbacks.rules.outcome import Outcome
from orchestrator_site.base.db.transactions import release_connection
from tests.helpers.delivery_fixtures import (
    DEAD,
    DELIVERED,
    EXIT,
    IMPATIENT,
    KEY,
    LOG,
    PATIENT,
    PENDING,
    START,
    Stream,
    attempts,
    deliver,
    deliver_process,
    in_threads,
)
from tests.helpers.receiver import Answer, Received, Receiver
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

# -- success ---------------------------------------------------------------------------------------


def test_events_arrive_in_order_and_signed(receiver: Receiver) -> None:
    # Given three events
    stream = Stream(receiver.url + "/hook?token=1")
    stream.publish(START, LOG, EXIT)

    # When they are delivered
    stream.deliver()

    # I expect each once, in order, with its frozen body and a valid signature
    assert [received.json["type"] for received in receiver.requests] == [START, LOG, EXIT]
    receiver.check_order()
    for received, event in zip(receiver.requests, stream.events, strict=True):
        received.verify(KEY)
        assert (received.method, received.path) == ("POST", "/hook?token=1")
        assert received.body == bytes(event.body)
        assert received.headers["content-type"] == "application/cloudevents+json"
        assert received.headers["webhook-id"] == received.headers["ce-id"] == str(event.pk)
        assert received.headers["user-agent"].startswith("Orchestrator")
    assert stream.states == [DELIVERED] * 3
    assert all(event.settled_at and event.tries == 1 for event in stream.events)

    # and nothing left to do
    assert (stream.row.next_attempt_at, stream.row.lease_token) == (None, None)
    assert due_streams.due(10) == []


def test_the_answer_of_a_server_that_echoes_is_stored_without_secrets(receiver: Receiver) -> None:
    receiver.will(Answer(body=b"got Bearer s3cr3t-token at /hook?token=s3cr3t-query"))
    stream = Stream(receiver.url + "/hook?token=s3cr3t-query", headers={"Authorization": "Bearer s3cr3t-token"})
    stream.publish(START)
    stream.deliver()
    assert Attempt.objects.get().answer == "got *** at /hook?***"


def test_an_event_without_a_key_is_not_signed(receiver: Receiver) -> None:
    stream = Stream(receiver.url, keys=())
    stream.publish()
    stream.deliver()
    assert not {"x-signature-256", "webhook-signature"} & receiver.requests[0].headers.keys()


def test_an_event_is_signed_with_both_keys(receiver: Receiver) -> None:
    # Given a stream whose receiver changes from an old key to a new one
    stream = Stream(receiver.url, keys=("new", "old"))
    stream.publish()

    # When its event is delivered
    stream.deliver()

    # I expect a receiver with either key to accept it, and the header that holds one signature to be the old key's
    [received] = receiver.requests
    for key in ("new", "old"):
        Webhook(key.encode()).verify(received.body, received.headers)
    assert len(received.headers["webhook-signature"].split()) == 2
    assert received.headers["x-signature-256"] == "sha256=" + hmac.new(b"old", received.body, "sha256").hexdigest()


def test_a_callback_header_replaces_the_password_of_the_url(receiver: Receiver) -> None:
    stream = Stream(receiver.url.replace("http://", "http://user:password@"), headers={"authorization": "Bearer token"})
    stream.publish()
    stream.deliver()
    assert receiver.requests[0].headers["authorization"] == "Bearer token"


def test_headers_of_the_callback_are_sent_with_each_event(receiver: Receiver) -> None:
    stream = Stream(receiver.url, headers={"Authorization": "Bearer tökén", "X-Tenant": "7"})
    stream.publish(START, LOG)
    stream.deliver()
    for received in receiver.requests:
        assert (received.headers["authorization"], received.headers["x-tenant"]) == ("Bearer tökén", "7")
        received.verify(KEY)


def test_an_attempt_is_stored_with_the_start_of_its_answer(receiver: Receiver) -> None:
    # Given an answer that is long, not UTF-8 and contains a NUL
    receiver.will(Answer(201, body=b"a\0\xff" + "é".encode() * 5000))
    stream = Stream(receiver.url)
    stream.publish()

    # When it arrives
    stream.deliver()

    # I expect its beginning to be stored as text
    (attempt,) = Attempt.objects.all()
    assert (attempt.status, attempt.error) == (201, "")
    assert attempt.answer.startswith("a\ufffd\ufffdé")
    assert 2000 < len(attempt.answer.encode()) <= 2048


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 429, 500, 503])
def test_a_failed_event_is_retried_before_later_ones(receiver: Receiver, status: int) -> None:
    # Given a destination that fails once
    receiver.will(Answer(status, {"Location": receiver.url + "/elsewhere"}, body=b"no"))
    stream = Stream(receiver.url)
    stream.publish(START, EXIT)

    # When the first event is sent
    stream.deliver()

    # I expect nothing more to be sent before the retry is due
    stream.deliver()
    assert len(receiver.requests) == 1
    assert 0 < stream.due_in <= 1.2
    assert attempts(stream.events[0]) == [(status, "no")]

    # and then the same event again, and the next
    stream.retry_now()
    assert [received.json["jobsequence"] for received in receiver.requests] == [1, 1, 2]
    assert receiver.requests[0].body == receiver.requests[1].body
    assert [received.path for received in receiver.requests] == ["/"] * 3
    assert stream.states == [DELIVERED, DELIVERED]


def test_retries_follow_the_schedule_until_the_event_is_dead(receiver: Receiver) -> None:
    # Given a destination that refuses one event
    receiver.respond = lambda received: Answer(404 if received.json["jobsequence"] == 1 else 200)
    stream = Stream(receiver.url)
    stream.publish(START, EXIT)

    # When it is retried again and again
    stream.deliver()
    for step in (1, 5, 30, 120, 600, 1800, 3600, 7200, 14400):
        assert step - 5 < stream.due_in <= step * 1.2
        stream.retry_now()

    # I expect it to be dead after ten tries, and the stream to go on
    assert stream.states == [DEAD, DELIVERED]
    assert len(attempts(stream.events[0])) == stream.events[0].tries == 10
    assert stream.row.next_attempt_at is None


@pytest.mark.parametrize("status", [410, 415])
def test_an_event_with_a_permanent_failure_is_dead_at_once(receiver: Receiver, status: int) -> None:
    receiver.will(Answer(status))
    stream = Stream(receiver.url)
    stream.publish(START, EXIT)
    stream.deliver()
    assert stream.states == [DEAD, DELIVERED]


def test_refused_logs_delay_later_events_by_minutes_only(receiver: Receiver) -> None:
    # Given a destination that refuses logs for a while
    refusing = True
    receiver.respond = lambda received: Answer(413 if refusing and received.json["type"] == LOG else 200)
    stream = Stream(receiver.url)
    stream.publish(START, LOG, LOG, LOG, EXIT)

    # When the first one has had its five tries
    stream.deliver()
    stream.retry_now(4)

    # I expect one try for each of the others, and the rest to arrive
    assert stream.states == [DELIVERED, DEAD, DEAD, DEAD, DELIVERED]
    assert [event.tries for event in stream.events] == [1, 5, 1, 1, 1]

    # and once a log has been accepted, five tries again
    refusing = False
    stream.publish(LOG)
    stream.deliver()
    refusing = True
    stream.publish(LOG)
    stream.deliver()
    assert stream.states[-2:] == [DELIVERED, PENDING]
    stream.retry_now(4)
    assert (stream.states[-1], stream.events[-1].tries) == (DEAD, 5)


def test_retry_after_is_honored_with_429_and_503(receiver: Receiver) -> None:
    receiver.will(
        Answer(429, {"Retry-After": "3600"}), Answer(503, {"Retry-After": "999999999"}), Answer(500, {"Retry-After": "3600"})
    )
    stream = Stream(receiver.url)
    stream.publish()
    stream.deliver()
    assert 3590 < stream.due_in <= 3600

    # up to the time when the event expires
    stream.retry_now()
    assert 86000 < stream.due_in <= 86400

    # and not with other statuses
    stream.retry_now()
    assert stream.due_in <= 36


@pytest.mark.parametrize("fault", ["hang", "drip", "drip_headers", "half", "reset", "garbage"])
def test_an_attempt_without_a_whole_answer_is_not_counted(receiver: Receiver, fault: Any) -> None:
    # Given a destination that fails to answer, whether a request arrives in time or late
    receiver.respond = lambda _: Answer(fault=fault)
    stream = Stream(receiver.url, deliverer=Deliverer(IMPATIENT))
    stream.publish()

    # When it is tried twice
    stream.deliver()
    stream.retry_now()

    # I expect both attempts to be stored and spaced out, but not counted as tries
    (event,) = stream.events
    assert (event.state, event.tries, event.silences) == (PENDING, 0, 2)
    assert 1 < stream.due_in <= 6
    assert all(attempt.status is None and attempt.error for attempt in Attempt.objects.all())

    # until the first answer, which resets the count of unanswered attempts
    stream.deliverer = Deliverer(PATIENT)
    receiver.respond = lambda _: Answer(500)
    stream.retry_now()
    assert (stream.events[0].tries, stream.events[0].silences) == (1, 0)
    receiver.respond = lambda _: Answer()
    stream.retry_now()
    assert stream.states == [DELIVERED]


def test_an_event_survives_a_host_that_is_down() -> None:
    # Given a port on which nothing listens
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    stream = Stream(f"http://127.0.0.1:{port}/?token=s3cr3t")
    stream.publish()

    # When delivery is attempted more often than a destination may refuse an event
    stream.deliver()
    stream.retry_now(20)

    # I expect the event to be pending still, and to arrive once something listens
    (event,) = stream.events
    assert (event.state, event.tries) == (PENDING, 0)
    assert not Attempt.objects.filter(error__contains="s3cr3t").exists()
    with Receiver(port=port) as receiver:
        stream.retry_now()
        assert len(receiver.requests) == 1
    assert stream.states == [DELIVERED]


def test_an_attempt_to_a_forbidden_address_says_so() -> None:
    stream = Stream("http://0.0.0.0:1/?token=s3cr3t")
    stream.publish()
    stream.deliver()
    (attempt,) = Attempt.objects.all()
    assert "EGRESS_ALLOW" in attempt.error
    assert stream.states == [PENDING]


def test_an_endless_answer_counts_by_its_status(receiver: Receiver) -> None:
    receiver.will(Answer(200, fault="endless"))
    stream = Stream(receiver.url)
    stream.publish()
    stream.deliver()
    assert stream.states == [DELIVERED]
    assert len(Attempt.objects.get().answer) == 2048


def test_an_event_expires_after_a_day(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given many events behind one that fails
    monkeypatch.setattr(attempt_results, "_EXPIRED_BATCH", 2)
    receiver.will(Answer(500))
    stream = Stream(receiver.url)
    stream.publish(START, LOG, LOG, LOG, LOG)
    stream.deliver()

    # When a day has passed, and another is published
    stream.age(timedelta(days=1))
    stream.publish(EXIT)
    stream.retry_now()
    while due_streams.due(10):
        stream.deliver()

    # I expect all old ones to be dead without another try, and the new one to arrive
    assert stream.states == [DEAD] * 5 + [DELIVERED]
    assert [received.json["jobsequence"] for received in receiver.requests] == [1, 6]


# -- crashes and races -----------------------------------------------------------------------------


def test_an_event_is_sent_again_after_a_crash_before_recording(receiver: Receiver) -> None:
    # Given a process that dies as soon as the answer is there
    stream = Stream(receiver.url)
    stream.publish(START, EXIT)

    def send_and_die(*arguments: Any) -> Outcome:
        delivery_attempt.send(*arguments)
        raise SystemExit

    with pytest.raises(SystemExit):
        deliver(Deliverer(send=send_and_die), stream.pk)

    # Until its lease has expired, I expect no delivery
    stream.deliver()
    assert due_streams.due(10) == []

    # and then the same bytes under the same id, and the next event
    stream.expire_lease()
    assert due_streams.due(10) == [stream.pk]
    stream.deliver()
    first, again, following = receiver.requests
    assert first.body == again.body
    assert first.headers["webhook-id"] == again.headers["webhook-id"]
    assert following.json["jobsequence"] == 2
    assert stream.states == [DELIVERED, DELIVERED]

    # and the attempt with the unknown result to be stored, but not counted as a try
    lost, known = stream.events[0].attempts.order_by("time")
    assert (lost.status, lost.error.partition(":")[0], known.status) == (None, "interrupted", 200)
    assert stream.events[0].tries == 1


def test_a_delivery_that_lost_its_lease_records_nothing(receiver: Receiver) -> None:
    # Given an attempt in flight when its lease expires
    released = threading.Event()

    def respond(received: Received) -> Answer:
        if received is receiver.requests[0]:
            released.wait(30)
            return Answer(500)
        return Answer(200)

    stream = Stream(receiver.url)
    stream.publish()
    receiver.respond = respond
    slow = threading.Thread(target=lambda: (stream.deliver(), connections.close_all()))
    slow.start()
    receiver.wait_for(1)
    stream.expire_lease()

    # When another process delivers the event before the first one gets its answer
    deliver(Deliverer(PATIENT), stream.pk)
    assert stream.states == [DELIVERED]
    released.set()
    slow.join()

    # I expect that answer to be ignored, and its attempt to be stored as interrupted
    assert [attempt.status for attempt in Attempt.objects.order_by("pk")] == [None, 200]
    assert stream.states == [DELIVERED]
    assert stream.row.next_attempt_at is None


def test_concurrent_deliverers_neither_reorder_nor_repeat(receiver: Receiver) -> None:
    # Given many events, still being published while several threads deliver them
    stream = Stream(receiver.url)
    stream.publish(*[LOG] * 20)

    def work(number: int) -> None:
        for _ in range(10):
            if number == 0:
                stream.publish(LOG, LOG)
            stream.deliver()

    in_threads(4, work)
    while due_streams.due(10):
        stream.deliver()

    # I expect each event once, one at a time, in order
    assert [received.json["jobsequence"] for received in receiver.requests] == list(range(1, 41))
    assert receiver.max_at_once == 1
    assert set(stream.states) == {DELIVERED}


def test_an_event_published_as_a_delivery_ends_is_not_lost(receiver: Receiver) -> None:
    # Given an event that is published when a delivery has found nothing left and is about to record that
    stream = Stream(receiver.url)
    stream.publish(START)
    publishers: list[threading.Thread] = []

    def publish() -> None:
        stream.publish(EXIT)
        connections.close_all()

    def publish_before(execute: Any, statement: str, *args: Any) -> Any:
        if receiver.requests and statement.startswith('UPDATE "callbacks_subscription"') and not publishers:
            publishers.append(threading.Thread(target=publish))
            publishers[0].start()
        return execute(statement, *args)

    # When the delivery ends
    with connection.execute_wrapper(publish_before):
        stream.deliver()
    publishers[0].join()

    # I expect the stream to be due, or the event to have been sent
    for identity in due_streams.due(10):
        deliver(stream.deliverer, identity)
    assert stream.states == [DELIVERED, DELIVERED]


def test_a_long_stream_lets_others_go_first(receiver: Receiver) -> None:
    stream = Stream(receiver.url, deliverer=Deliverer(PATIENT, max_attempts=3))
    stream.publish(*[LOG] * 7)
    stream.deliver()
    assert len(receiver.requests) == 3
    assert due_streams.due(10) == [stream.pk]
    stream.deliver()
    stream.deliver()
    assert [received.json["jobsequence"] for received in receiver.requests] == list(range(1, 8))


def test_a_dead_host_delays_no_other_stream(receiver: Receiver) -> None:
    dead, living = Stream("http://127.0.0.1:1/"), Stream(receiver.url, subject="job-2")
    dead.publish()
    living.publish()
    for identity in due_streams.due(10):
        deliver(dead.deliverer, identity)
    assert (dead.states, living.states) == ([PENDING], [DELIVERED])


def test_a_delivery_in_flight_leaves_no_trace_of_a_deleted_stream(receiver: Receiver) -> None:
    # Given a stream that is deleted while its delivery waits for the answer
    stream = Stream(receiver.url)
    stream.publish(START, EXIT)

    def respond(_: Received) -> Answer:
        in_threads(1, lambda _: outbox.forget([stream.uuid]))
        return Answer(200)

    receiver.respond = respond

    # When the answer arrives, I expect nothing to be recorded and nothing more to be sent
    stream.deliver()
    assert (Subscription.objects.count(), Event.objects.count(), Attempt.objects.count()) == (0, 0, 0)
    assert len(receiver.requests) == 1


def test_no_database_connection_is_held_while_waiting_for_an_answer(receiver: Receiver) -> None:
    held: list[bool] = []
    stream = Stream(receiver.url)
    stream.publish()
    release_connection()
    own = connections["default"]  # this thread's

    def respond(_: Received) -> Answer:
        held.append(own.connection is not None)
        return Answer(200)

    receiver.respond = respond
    stream.deliver()
    assert held == [False]


# -- messages --------------------------------------------------------------------------------------


def due_stream(url: str, number: int) -> Stream:
    stream = Stream(url, subject=f"job-{number}")
    stream.publish()
    return stream


def test_due_streams_are_found_the_longest_due_first(receiver: Receiver) -> None:
    # Given due streams, and one that is due later
    streams = [due_stream(receiver.url, number) for number in range(5)]
    receiver.will(Answer(500))
    streams[4].deliver()

    # I expect those that are due
    assert due_streams.due(10) == [stream.pk for stream in streams[:4]]
    assert due_streams.due(3) == [stream.pk for stream in streams[:3]]


def test_messages_alone_deliver_everything(receiver: Receiver) -> None:
    # Given a process that delivers
    with deliver_process(Deliverer(PATIENT), threads=4):
        # When events are published
        streams = [Stream(receiver.url, subject=f"job-{number}") for number in range(4)]
        for stream in streams:
            stream.publish(START, LOG, EXIT)

        # I expect them to arrive without the relay
        wait_for(lambda: all(set(stream.states) == {DELIVERED} for stream in streams), what="all to be delivered")
    receiver.check_order()
