"""`manage.py migrate`: Django's own, for tables that are large."""

from typing import Any

from django.core.management.commands import migrate
from django.db import connections

from orchestrator_site.base.db.postgresql import unlimited


class Command(migrate.Command):
    """A migration may take long, but does not wait long for its locks: it rather fails than has everybody wait behind it.

    The settings cannot know that a process will migrate; so the command says it, however it is called.
    """

    def handle(self, *args: Any, **options: Any) -> None:
        connection = connections[options["database"]]
        if connection.vendor != "postgresql":
            super().handle(*args, **options)
            return
        with unlimited(connection):
            super().handle(*args, **options)
