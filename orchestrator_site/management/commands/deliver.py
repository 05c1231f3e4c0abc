"""`manage.py deliver`, a process of the Procfile."""

from typing import Any

from django.core.management.base import BaseCommand

from orchestrator_site.processes import DeliverProcess, Runtime


class Command(BaseCommand):
    help = "Deliver events to their callbacks."

    def handle(self, *args: Any, **options: Any) -> None:
        Runtime(DeliverProcess()).run_until_signal()
