#!/usr/bin/env python
"""Django's command line, and the client of the API, which needs no Django."""

import os
import sys

BACKGROUND = ("worker", "deliver", "relay")  # processes of the Procfile that serve no API


def manage() -> None:
    from django.core.management import execute_from_command_line

    from orchestrator_site.base.config.variables import ConfigurationError

    if len(sys.argv) > 1 and sys.argv[1] in BACKGROUND:
        os.environ["DJANGO_SETTINGS_MODULE"] = "orchestrator_site.background_settings"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orchestrator_site.settings")
    try:
        execute_from_command_line(sys.argv)
    except ConfigurationError as error:
        sys.exit(str(error))


def run() -> None:
    from orchestrator_site.client.__main__ import start

    start("manage.py run", sys.argv[2:])


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        run()
    else:
        manage()
