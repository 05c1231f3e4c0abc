"""The WSGI application."""

import os

from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orchestrator_site.settings")

application = get_wsgi_application()
get_resolver().url_patterns  # noqa: B018 - load all views now instead of in each of the processes that are forked
