"""`manage.py migrate`: Django's command without the time limits of the service, which also creates the roles of the admin."""

from contextlib import nullcontext
from typing import Any

from django.core.management.commands import migrate
from django.db import connections

from orchestrator_site import roles
from orchestrator_site.base.db.postgresql import unlimited


class Command(migrate.Command):
    """Django's command without a time limit on statements; a lock that is not free soon makes it fail rather than block."""

    def handle(self, *args: Any, **options: Any) -> None:
        database = options["database"]
        connection = connections[database]
        with unlimited(connection) if connection.vendor == "postgresql" else nullcontext():
            with roles.no_permissions_created():
                super().handle(*args, **options)
            if not (options["app_label"] or options["plan"] or options["check_unapplied"]):
                roles.update_roles(database, options["verbosity"])
