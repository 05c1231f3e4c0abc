"""`manage.py worker`, a process of the Procfile."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from jobs.errors import JobError
from orchestrator_site.processes import Runtime, WorkerProcess


class Command(BaseCommand):
    help = "Run jobs on the container engine of this worker."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            Runtime(WorkerProcess(settings.CONFIGURATION)).run_until_signal()
        except JobError as error:
            raise CommandError(str(error)) from error
