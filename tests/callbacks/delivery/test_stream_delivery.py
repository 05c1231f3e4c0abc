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
from callbacks.delivery import attempt_results, due_streams, stream_delivery
from callbacks.delivery.actors import deliver
from callbacks.models import Attempt, Event, Subscription
from orchestrator_site.base.broker import broker, make_worker
from orchestrator_site.base.db.transactions import release_connection
from tests.helpers.delivery_fixtures import DEAD, DELIVERED, EXIT, KEY, LOG, PENDING, START, Stream, attempts, in_threads
from tests.helpers.receiver import Answer, Received, Receiver
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("empty_queue")]

# -- the good way ----------------------------------------------------------------------------------


def test_events_arrive_in_order_signed_and_are_done(receiver: Receiver) -> None:
    # Given three events
    stream = Stream(receiver.url + "/hook?token=1")
    stream.publish(START, LOG, EXIT)

    # When they are sent
    stream.drain()

    # I expect each once, in order, as frozen and verifiable
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


def test_without_a_key_nothing_is_signed(receiver: Receiver) -> None:
    stream = Stream(receiver.url, keys=())
    stream.publish()
    stream.drain()
    assert not {"x-signature-256", "webhook-signature"} & receiver.requests[0].headers.keys()


def test_both_keys_sign(receiver: Receiver) -> None:
    # Given a stream whose receiver changes from an old key to a new one
    stream = Stream(receiver.url, keys=("new", "old"))
    stream.publish()

    # When its event is delivered
    stream.drain()

    # I expect a receiver with either key to accept it, and the header that holds one signature to be the old key's
    [received] = receiver.requests
    for key in ("new", "old"):
        Webhook(key.encode()).verify(received.body, received.headers)
    assert len(received.headers["webhook-signature"].split()) == 2
    assert received.headers["x-signature-256"] == "sha256=" + hmac.new(b"old", received.body, "sha256").hexdigest()


def test_headers_of_the_callback_are_sent_with_each_event(receiver: Receiver) -> None:
    stream = Stream(receiver.url, headers={"Authorization": "Bearer tökén", "X-Tenant": "7"})
    stream.publish(START, LOG)
    stream.drain()
    for received in receiver.requests:
        assert (received.headers["authorization"], received.headers["x-tenant"]) == ("Bearer tökén", "7")
        received.verify(KEY)


def test_an_attempt_is_kept_with_the_start_of_its_answer(receiver: Receiver) -> None:
    # Given an answer that is long, not UTF-8 and holds a NUL
    receiver.will(Answer(201, body=b"a\0\xff" + "é".encode() * 5000))
    stream = Stream(receiver.url)
    stream.publish()

    # When it comes
    stream.drain()

    # I expect its beginning, as text
    (attempt,) = Attempt.objects.all()
    assert (attempt.status, attempt.error) == (201, "")
    assert attempt.answer.startswith("a\ufffd\ufffdé")
    assert 2000 < len(attempt.answer.encode()) <= 2048


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 429, 500, 503])
def test_a_failure_is_tried_again_and_holds_up_what_follows(receiver: Receiver, status: int) -> None:
    # Given a destination that fails once
    receiver.will(Answer(status, {"Location": receiver.url + "/elsewhere"}, body=b"no"))
    stream = Stream(receiver.url)
    stream.publish(START, EXIT)

    # When it is sent
    stream.drain()

    # I expect nothing to follow before its time has come, whoever asks
    stream.drain()
    assert len(receiver.requests) == 1
    assert 0 < stream.waits <= 1.2
    assert attempts(stream.events[0]) == [(status, "no")]

    # and then the same event again, and the next
    stream.try_now()
    assert [received.json["jobsequence"] for received in receiver.requests] == [1, 1, 2]
    assert receiver.requests[0].body == receiver.requests[1].body
    assert [received.path for received in receiver.requests] == ["/"] * 3
    assert stream.states == [DELIVERED, DELIVERED]


def test_retries_follow_the_schedule_until_the_event_is_dead(receiver: Receiver) -> None:
    # Given a destination that takes nothing of one event
    receiver.respond = lambda received: Answer(404 if received.json["jobsequence"] == 1 else 200)
    stream = Stream(receiver.url)
    stream.publish(START, EXIT)

    # When it is tried again and again
    stream.drain()
    for step in (1, 5, 30, 120, 600, 1800, 3600, 7200, 14400):
        assert step - 5 < stream.waits <= step * 1.2
        stream.try_now()

    # I expect it dead after ten tries, and the stream to go on
    assert stream.states == [DEAD, DELIVERED]
    assert len(attempts(stream.events[0])) == stream.events[0].tries == 10
    assert stream.row.next_attempt_at is None


@pytest.mark.parametrize("status", [410, 415])
def test_some_answers_are_final(receiver: Receiver, status: int) -> None:
    receiver.will(Answer(status))
    stream = Stream(receiver.url)
    stream.publish(START, EXIT)
    stream.drain()
    assert stream.states == [DEAD, DELIVERED]


def test_logs_that_are_not_taken_hold_up_the_rest_for_minutes_only(receiver: Receiver) -> None:
    # Given a destination that takes no logs for a while
    refusing = True
    receiver.respond = lambda received: Answer(413 if refusing and received.json["type"] == LOG else 200)
    stream = Stream(receiver.url)
    stream.publish(START, LOG, LOG, LOG, EXIT)

    # When the first one has had its five tries
    stream.drain()
    stream.try_now(4)

    # I expect one try for each of the others, and the rest to arrive
    assert stream.states == [DELIVERED, DEAD, DEAD, DEAD, DELIVERED]
    assert [event.tries for event in stream.events] == [1, 5, 1, 1, 1]

    # and once a log is taken, five again
    refusing = False
    stream.publish(LOG)
    stream.drain()
    refusing = True
    stream.publish(LOG)
    stream.drain()
    assert stream.states[-2:] == [DELIVERED, PENDING]
    stream.try_now(4)
    assert (stream.states[-1], stream.events[-1].tries) == (DEAD, 5)


def test_retry_after_is_believed(receiver: Receiver) -> None:
    receiver.will(
        Answer(429, {"Retry-After": "3600"}), Answer(503, {"Retry-After": "999999999"}), Answer(500, {"Retry-After": "3600"})
    )
    stream = Stream(receiver.url)
    stream.publish()
    stream.drain()
    assert 3590 < stream.waits <= 3600

    # up to the event's end, when it has to be looked at
    stream.try_now()
    assert 86000 < stream.waits <= 86400

    # and of these two statuses only
    stream.try_now()
    assert stream.waits <= 36


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", ["hang", "drip", "drip_headers", "half", "reset", "garbage"])
def test_no_whole_answer_spends_no_try(receiver: Receiver, fault: Any) -> None:
    # Given a destination that does not manage to answer
    receiver.will(*[Answer(fault=fault)] * 2)
    stream = Stream(receiver.url)
    stream.publish()

    # When it is tried twice
    stream.drain()
    stream.try_now()

    # I expect both to be kept and spaced, and neither counted
    (event,) = stream.events
    assert (event.state, event.tries, event.silences) == (PENDING, 0, 2)
    assert 1 < stream.waits <= 6
    assert all(attempt.status is None and attempt.error for attempt in Attempt.objects.all())

    # and the count of silence to end with an answer
    receiver.will(Answer(500))
    stream.try_now()
    assert (stream.events[0].tries, stream.events[0].silences) == (1, 0)
    stream.try_now()
    assert stream.states == [DELIVERED]


def test_a_host_that_is_down_spends_no_try() -> None:
    # Given a port where nobody listens, then somebody
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    stream = Stream(f"http://127.0.0.1:{port}/?token=s3cr3t")
    stream.publish()

    # When it is tried more often than a destination may refuse it
    stream.drain()
    stream.try_now(20)

    # I expect it to be pending still, and to arrive once there is somebody
    (event,) = stream.events
    assert (event.state, event.tries) == (PENDING, 0)
    assert not Attempt.objects.filter(error__contains="s3cr3t").exists()
    with Receiver(port=port) as receiver:
        stream.try_now()
        assert len(receiver.requests) == 1
    assert stream.states == [DELIVERED]


def test_a_forbidden_address_is_an_attempt_that_says_so() -> None:
    stream = Stream("http://0.0.0.0:1/?token=s3cr3t")
    stream.publish()
    stream.drain()
    (attempt,) = Attempt.objects.all()
    assert "EGRESS_ALLOW" in attempt.error
    assert stream.states == [PENDING]


def test_an_endless_answer_counts_by_its_status(receiver: Receiver) -> None:
    # Given an answer without an end
    receiver.will(Answer(200, fault="endless"))
    stream = Stream(receiver.url)
    stream.publish()

    # When it comes, I expect its beginning to be enough
    stream.drain()
    assert stream.states == [DELIVERED]
    assert len(Attempt.objects.get().answer) == 2048


def test_an_event_is_dead_at_the_age_of_a_day_whatever_happened(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given many events behind one that fails
    monkeypatch.setattr(attempt_results, "_EXPIRED_BATCH", 2)
    receiver.will(Answer(500))
    stream = Stream(receiver.url)
    stream.publish(START, LOG, LOG, LOG, LOG)
    stream.drain()

    # When a day has passed, and another is published
    stream.age(timedelta(days=1))
    stream.publish(EXIT)
    stream.try_now()
    while due_streams.due(10):
        stream.drain()

    # I expect all the old ones dead without a further try, and the new one to arrive
    assert stream.states == [DEAD] * 5 + [DELIVERED]
    assert [received.json["jobsequence"] for received in receiver.requests] == [1, 6]


# -- crashes and crowds ----------------------------------------------------------------------------


def test_a_crash_between_sending_and_writing_it_down_sends_the_same_event_again(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a process that dies as soon as the answer is there
    stream = Stream(receiver.url)
    stream.publish(START, EXIT)

    def die(*_: object, **__: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(stream_delivery, "_record", die)
        with pytest.raises(SystemExit):
            stream.drain()

    # When its lease has not run out, I expect nobody to touch the stream
    stream.drain()
    assert due_streams.due(10) == []

    # and afterwards the same bytes under the same id, then the next event
    stream.lose_lease()
    assert due_streams.due(10) == [stream.pk]
    stream.drain()
    first, again, following = receiver.requests
    assert first.body == again.body
    assert first.headers["webhook-id"] == again.headers["webhook-id"]
    assert following.json["jobsequence"] == 2
    assert stream.states == [DELIVERED, DELIVERED]

    # and the attempt of which nobody knows what came to be accounted for, as no try of the destination's
    lost, known = stream.events[0].attempts.order_by("time")
    assert (lost.status, lost.error.partition(":")[0], known.status) == (None, "interrupted", 200)
    assert stream.events[0].tries == 1


def test_who_lost_the_lease_writes_nothing_down(receiver: Receiver) -> None:
    # Given an attempt under way while its lease runs out
    released = threading.Event()

    def respond(received: Received) -> Answer:
        if received is receiver.requests[0]:
            released.wait(30)
            return Answer(500)
        return Answer(200)

    stream = Stream(receiver.url)
    stream.publish()
    receiver.respond = respond
    slow = threading.Thread(target=lambda: (stream.drain(), connections.close_all()))
    slow.start()
    receiver.wait_for(1)
    stream.lose_lease()

    # When another process delivers the event, and the first one comes back
    stream.drain()
    assert stream.states == [DELIVERED]
    released.set()
    slow.join()

    # I expect nothing of it, and its attempt to be accounted for
    assert [attempt.status for attempt in Attempt.objects.order_by("pk")] == [None, 200]
    assert stream.states == [DELIVERED]
    assert stream.row.next_attempt_at is None


def test_a_crowd_of_deliverers_never_reorders_nor_doubles(receiver: Receiver) -> None:
    # Given many events, still being published while many deliver them
    stream = Stream(receiver.url)
    stream.publish(*[LOG] * 20)

    def work(number: int) -> None:
        for _ in range(10):
            if number == 0:
                stream.publish(LOG, LOG)
            stream.drain()

    in_threads(4, work)
    while due_streams.due(10):
        stream.drain()

    # I expect each event once, one at a time, in order
    assert [received.json["jobsequence"] for received in receiver.requests] == list(range(1, 41))
    assert receiver.most_at_once == 1
    assert set(stream.states) == {DELIVERED}


def test_no_event_is_forgotten_that_is_published_while_a_delivery_ends(receiver: Receiver) -> None:
    # Given an event that is published when a delivery has found nothing left and is about to say so
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
        stream.drain()
    publishers[0].join()

    # I expect the stream to be due, or that one to have been sent
    for identity in due_streams.due(10):
        stream_delivery.drain(identity)
    assert stream.states == [DELIVERED, DELIVERED]


def test_a_long_stream_makes_room_for_others(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_delivery, "_MOST_ATTEMPTS", 3)
    stream = Stream(receiver.url)
    stream.publish(*[LOG] * 7)
    stream.drain()
    assert len(receiver.requests) == 3
    assert due_streams.due(10) == [stream.pk]
    stream.drain()
    stream.drain()
    assert [received.json["jobsequence"] for received in receiver.requests] == list(range(1, 8))


def test_a_dead_host_holds_up_no_other_stream(receiver: Receiver) -> None:
    dead, living = Stream("http://127.0.0.1:1/"), Stream(receiver.url, subject="job-2")
    dead.publish()
    living.publish()
    for identity in due_streams.due(10):
        stream_delivery.drain(identity)
    assert (dead.states, living.states) == ([PENDING], [DELIVERED])


def test_a_forgotten_stream_is_left_alone_by_a_delivery_under_way(receiver: Receiver) -> None:
    # Given a delivery whose stream is forgotten while it waits for the answer
    stream = Stream(receiver.url)
    stream.publish(START, EXIT)

    def respond(_: Received) -> Answer:
        in_threads(1, lambda _: outbox.forget([stream.uuid]))
        return Answer(200)

    receiver.respond = respond

    # When the answer comes, I expect it to end without a trace
    stream.drain()
    assert (Subscription.objects.count(), Event.objects.count(), Attempt.objects.count()) == (0, 0, 0)
    assert len(receiver.requests) == 1


def test_no_connection_to_the_database_is_held_while_a_peer_is_waited_for(receiver: Receiver) -> None:
    held: list[bool] = []
    stream = Stream(receiver.url)
    stream.publish()
    release_connection()
    own = connections["default"]  # this thread's

    def respond(_: Received) -> Answer:
        held.append(own.connection is not None)
        return Answer(200)

    receiver.respond = respond
    stream.drain()
    assert held == [False]


# -- messages --------------------------------------------------------------------------------------


def test_the_relay_finds_what_no_message_came_for(receiver: Receiver) -> None:
    # Given due streams whose messages were lost, and one that waits
    streams = [Stream(receiver.url, subject=f"job-{number}") for number in range(5)]
    for stream in streams:
        stream.publish()
    receiver.will(Answer(500))
    streams[4].drain()
    broker.flush_all()

    # I expect messages for the due ones, the longest due first
    assert due_streams.due(10) == [stream.pk for stream in streams[:4]]
    assert due_streams.Finder().look(limit=3) == 3

    # and no more of them while nobody reads any
    assert due_streams.Finder().look(limit=3) == 0
    broker.flush_all()
    assert due_streams.Finder().look() == 4


def test_messages_and_worker_deliver_everything(receiver: Receiver) -> None:
    # Given the actor's worker
    worker = make_worker({deliver.queue_name}, 4)
    worker.start()
    try:
        # When events are published
        streams = [Stream(receiver.url, subject=f"job-{number}") for number in range(4)]
        for stream in streams:
            stream.publish(START, LOG, EXIT)

        # I expect them to arrive with no other help
        wait_for(lambda: all(set(stream.states) == {DELIVERED} for stream in streams), what="all to be delivered")
    finally:
        worker.stop()
    receiver.check_order()
