#!/usr/bin/env python
"""Django's command line."""

import os
import sys

from django.core.management import execute_from_command_line

from orchestrator_site.base.config.variables import ConfigurationError

BACKGROUND = ("worker", "deliver", "relay")  # processes of the Procfile that serve no API

if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in BACKGROUND:
        os.environ["DJANGO_SETTINGS_MODULE"] = "orchestrator_site.background_settings"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orchestrator_site.settings")
    try:
        execute_from_command_line(sys.argv)
    except ConfigurationError as error:
        sys.exit(str(error))
