"""`manage.py embedded`: the whole service in one process, on SQLite."""

from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from orchestrator_site.embedded import EmbeddedApplication


class Command(BaseCommand):
    help = "Serve everything in one process until SIGINT or SIGTERM."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--prepare", action="store_true", help="first migrate the database, and create the first operator")

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.CONFIGURATION.embedded:
            raise CommandError("DATABASE_URL and REDIS_URL must not be set in embedded mode")
        if options["prepare"]:
            self._prepare()
        EmbeddedApplication().run()

    def _prepare(self) -> None:
        call_command("migrate", interactive=False, verbosity=0)
        call_command("operator", stdout=self.stdout)
        self.stdout.flush()
        connections.close_all()  # the processes that are forked must not share one
