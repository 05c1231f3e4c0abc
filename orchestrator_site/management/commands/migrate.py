"""`manage.py migrate`: Django's command without the time limits of the service."""

from typing import Any

from django.core.management.commands import migrate
from django.db import connections

from orchestrator_site.base.db.postgresql import unlimited


class Command(migrate.Command):
    """Django's command without a time limit on statements; a lock that is not free soon makes it fail rather than block."""

    def handle(self, *args: Any, **options: Any) -> None:
        connection = connections[options["database"]]
        if connection.vendor != "postgresql":
            super().handle(*args, **options)
            return
        with unlimited(connection):
            super().handle(*args, **options)
