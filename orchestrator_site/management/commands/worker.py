"""`manage.py worker`, a process of the Procfile."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from jobs.errors import JobError
from orchestrator_site.processes.runtime import Runtime
from orchestrator_site.processes.worker import WorkerProcess


class Command(BaseCommand):
    help = "Run jobs on the container engine of this worker."
    requires_system_checks = ()  # they load the URLs, and with them everything that only `web` needs

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            Runtime(WorkerProcess(settings.CONFIGURATION)).run_until_signal()
        except JobError as error:
            raise CommandError(str(error)) from error
