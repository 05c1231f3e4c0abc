"""`manage.py deliver`, a process of the Procfile."""

from typing import Any

from django.core.management.base import BaseCommand

from orchestrator_site.processes.deliver import DeliverProcess
from orchestrator_site.processes.runtime import Runtime


class Command(BaseCommand):
    help = "Deliver events to their callbacks."
    requires_system_checks = ()  # they load the URLs, and with them everything that only `web` needs

    def handle(self, *args: Any, **options: Any) -> None:
        Runtime(DeliverProcess()).run_until_signal()
