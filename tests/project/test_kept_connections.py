"""Connections to SQLite that the tests use again."""

import pytest
from django.db import connection, transaction

from jobs.models import Node
from tests.helpers.factories import make_node

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL has a pool")
def test_a_closed_connection_is_used_again() -> None:
    # Given a connection
    connection.close()
    connection.ensure_connection()
    used = connection.connection

    # When it is closed
    connection.close()
    assert connection.connection is None

    # I expect it to be the next one
    connection.ensure_connection()
    assert connection.connection is used


def test_a_connection_that_is_closed_in_a_transaction_has_changed_nothing() -> None:
    # Given a transaction that has changed something
    with transaction.atomic():
        make_node("n1")

        # When its connection is closed
        connection.close()

    # I expect no change
    assert not Node.objects.exists()
