"""Each origin has one row, which is deleted when unused, and never while it is being used."""

import threading
from typing import Any

import pytest
from django.db import connection, transaction

from callbacks.delivery import destination_rows
from callbacks.models import Destination, Subscription
from callbacks.operators import destinations
from orchestrator_site.base.db.statements import execute_together
from orchestrator_site.base.db.transactions import release_connection
from tests.helpers.delivery_fixtures import Stream, in_threads, time_passes
from tests.helpers.receiver import Receiver

pytestmark = pytest.mark.django_db(transaction=True)

MORE_THAN_A_DAY = 25 * 3600


def register(origin: str) -> Destination:
    execute_together(destination_rows.registration(origin))
    return Destination.objects.get(origin=origin)


def test_one_host_is_one_destination_however_it_is_spelled() -> None:
    for url in ("https://Hook.Example/a?token=1", "https://user:s3cr3t@hook.example:443/b", "HTTPS://hook.example./"):
        Stream(url)
    Stream("http://hook.example/")
    Stream("https://hook.example:8443/")
    assert sorted(Destination.objects.values_list("origin", flat=True)) == [
        "http://hook.example:80",
        "https://hook.example:443",
        "https://hook.example:8443",
    ]


def test_a_destination_is_deleted_a_day_after_its_last_use(receiver: Receiver) -> None:
    # Given one with a stream, one that is paused, one that is unused, one used again today, and one that is new
    Stream(receiver.url)
    paused, unused = (register(f"https://{name}.example:443") for name in ("paused", "unused"))
    destinations.pause(paused.pk)
    register("https://again.example:443")
    time_passes(MORE_THAN_A_DAY)
    register("https://again.example:443")
    register("https://new.example:443")

    # When unused ones are deleted, I expect that to be this one only
    assert destination_rows.delete_unused() == 1
    assert not Destination.objects.filter(pk=unused.pk).exists()
    assert Destination.objects.count() == 4
    assert destination_rows.delete_unused() == 0


@pytest.mark.parametrize("first", ["registration", "delete_unused"])
def test_a_destination_that_is_being_used_is_not_deleted(first: str) -> None:
    # Given a destination that has not been used for long
    url = "https://hook.example/"
    register("https://hook.example:443")
    time_passes(MORE_THAN_A_DAY)
    others: list[threading.Thread] = []

    def use() -> None:
        with transaction.atomic():
            Stream(url)

    def start(other: Any) -> None:
        others.append(threading.Thread(target=in_threads, args=(1, lambda _: other())))
        others[0].start()

    def use_before_the_deletion(execute: Any, statement: str, *args: Any) -> Any:
        if statement.startswith('DELETE FROM "callbacks_destination"') and not others:
            start(use)
        return execute(statement, *args)

    # When it is used and deleted at the same time
    if first == "registration":
        with transaction.atomic():
            Stream(url)
            start(destination_rows.delete_unused)
    else:
        with connection.execute_wrapper(use_before_the_deletion):
            destination_rows.delete_unused()
    others[0].join()
    release_connection()

    # I expect the stream to have a destination
    assert Subscription.objects.get().destination.origin == "https://hook.example:443"
    assert Destination.objects.count() == 1
