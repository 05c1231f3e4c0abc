"""`manage.py relay`, a process of the Procfile."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from orchestrator_site.processes.relay import RelayProcess
from orchestrator_site.processes.runtime import Runtime


class Command(BaseCommand):
    help = "Find due events and jobs of dead workers, and delete old data."
    requires_system_checks = ()  # they load the URLs, and with them everything that only `web` needs

    def handle(self, *args: Any, **options: Any) -> None:
        Runtime(RelayProcess(settings.CONFIGURATION)).run_until_signal()
