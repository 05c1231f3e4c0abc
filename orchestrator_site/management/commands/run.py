"""`manage.py run`, the client of the API. `manage.py` starts it before Django; this class only lists it in `manage.py help`."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from orchestrator_site.client.command_line import main
from orchestrator_site.client.options.arguments import run_parser


class Command(BaseCommand):
    help = "Run a job on the service at ORCHESTRATOR_URL and exit with its exit code."
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        sys.exit(main("manage.py run", argv[2:]))

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return run_parser("manage.py run")  # type: ignore[return-value]
