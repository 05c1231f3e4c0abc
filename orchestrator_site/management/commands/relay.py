"""`manage.py relay`, a process of the Procfile."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from orchestrator_site.processes import RelayProcess, Runtime


class Command(BaseCommand):
    help = "Find due events and jobs of dead workers, and delete old data."

    def handle(self, *args: Any, **options: Any) -> None:
        Runtime(RelayProcess(settings.CONFIGURATION)).run_until_signal()
