"""`manage.py embedded`: the whole service in one process, on SQLite."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from orchestrator_site.embedded import EmbeddedApplication


class Command(BaseCommand):
    help = "Serve everything in one process until SIGINT or SIGTERM."

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.CONFIGURATION.embedded:
            raise CommandError("DATABASE_URL and REDIS_URL must not be set in embedded mode")
        EmbeddedApplication().run()
